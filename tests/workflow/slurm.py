"""A SLURM of one node with one pretended GPU, in a folder of its own: the daemons are started and stopped by hand."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
MinJobAge=3600
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Say why no SLURM can be started here; None if one can."""
    absent = [name for name in (*DAEMONS, "sbatch", "srun") if not program(name)]
    if absent:
        return f"no {absent[0]} (Debian's packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons need root"


def program(name: str) -> str | None:
    """Return the path of a program, also of one that only root has on the path."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))


@dataclass(frozen=True)
class Slurm:
    """A SLURM that runs.

    Attributes:
        folder: where all its files lie.
    """

    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What its commands need, in the shell and inside jobs."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def ask(self, *command: str) -> str:
        """Return what one of SLURM's commands says."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return all jobs it has seen, as ``scontrol`` describes them."""
        lines = [line for line in self.ask("scontrol", "--oneliner", "show", "job").splitlines() if "=" in line]
        return [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in lines]


@contextmanager
def one_node(folder: Path) -> Iterator[Slurm]:
    """Start a SLURM in a folder; stop it at the end."""
    for name in ("state", "spool", "munge", "bin"):
        (folder / name).mkdir(parents=True, mode=0o700)
    slurm = Slurm(folder)
    try:
        start_munge(folder / "munge")
        configure(folder)
        for daemon in ("slurmctld", "slurmd"):
            slurm.ask(program(daemon) or daemon, "-f", str(folder / "slurm.conf"))
        wait_until_idle(slurm)
        yield slurm
    finally:
        for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munge" / "pid"):
            stop(pid_file)


def start_munge(folder: Path) -> None:
    """Start munge, by which SLURM's parts know each other, with a key of its own."""
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = [f"--{option}={folder / name}" for option, name in options.items()]
    # --force: the socket lies in a folder that only its owner can enter.
    subprocess.run([program("munged") or "munged", "--force", *files], check=True, timeout=60)


def configure(folder: Path) -> None:
    """Write the configuration; srun inside jobs is told where it lies, as SLURM takes the variable away there."""
    settings = {
        "folder": folder,
        "host": socket.gethostname().partition(".")[0],
        "controller_port": free_port(),
        "node_port": free_port(),
        "cpus": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total // 2**20 - 500,
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings), encoding="utf-8")
    (folder / "gres.conf").write_text(f"NodeName={settings['host']} Name=gpu File=/dev/null\n", encoding="utf-8")
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program("srun")} "$@"\n', encoding="utf-8")
    srun.chmod(0o755)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_idle(slurm: Slurm, seconds: float = 60) -> None:
    """Wait until the node takes jobs."""
    end = time.monotonic() + seconds
    while "idle" not in (state := slurm.ask("sinfo", "--noheader", "--format=%T")):
        if time.monotonic() > end:
            log = (slurm.folder / "slurmctld.log").read_text(encoding="utf-8")
            raise RuntimeError(f"SLURM's node is {state.strip()!r}:\n{log[-2000:]}")
        time.sleep(0.5)


def stop(pid_file: Path, seconds: float = 20) -> None:
    """End the daemon that wrote a file with its process's number."""
    try:
        process = psutil.Process(int(pid_file.read_text(encoding="ascii")))
        process.terminate()
        process.wait(seconds)
    except (OSError, ValueError, psutil.Error):
        return
