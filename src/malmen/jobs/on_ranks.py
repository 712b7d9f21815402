"""Jobs on several ranks: the process that Snakemake starts launches them by torchrun's agent, and waits for them.

Every rank runs the very command that Snakemake ran, so one script serves one process and many. The launcher holds the
job's log and its lock, passes signals on, and says in one sentence why a job ended. Several nodes are SLURM's: srun
starts an agent on each.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from malmen.jobs.job import logged, own_gpus
from malmen.errors import UserError
from malmen.jobs.agent import HERE, Group, Reason, run_ranks
from malmen.jobs.common import Machine
from malmen.jobs.rank_frame import in_rank
from malmen.provenance.recording import SnakemakeJob
from malmen.runtime.progress import logger
from malmen.runtime.rank_process import end_with_launcher, is_rank
from malmen.runtime.ranks import join
from malmen.runtime.signals import forwarding_signals


def on_ranks(task: SnakemakeJob) -> None:
    """Do a job's work on as many ranks as its machine has.

    With one rank nothing happens. Otherwise the process that Snakemake started launches the ranks and exits after them;
    each rank joins the others and returns, to do the work.

    Args:
        task: the variable ``snakemake`` of the script.
    """
    machine, log = Machine(**task.params["machine"]), Path(task.log[0])
    if machine.ranks == 1:
        return
    if is_rank():
        end_with_launcher()
        with in_rank(log):
            machine.set_up()
            join(machine.device)
        return
    with logged(log), own_gpus(task):
        logger.info("%d processes share this job", machine.ranks)
        launch(machine, int(task.resources.get("nodes", 1)), log)
    sys.exit()


def launch(machine: Machine, nodes: int, log: Path) -> None:
    """Run this process's own command in each rank, and wait until all have ended.

    Args:
        machine: the number of ranks, and the threads of each.
        nodes: over how many nodes the ranks are spread.
        log: the log of the job.

    Raises:
        UserError: if a rank failed; says why the first one did.
    """
    ranks, left = divmod(machine.ranks, nodes)
    if left:
        raise UserError(f"{machine.ranks} processes cannot be spread evenly over {nodes} nodes; change one of them.")
    meeting = HERE if nodes == 1 else f"{socket.gethostname()}:{free_port()}"
    group = Group(sys.orig_argv[1:], str(log.absolute()), ranks, machine.threads, nodes, meeting)
    found = run_ranks(group) if nodes == 1 else run_nodes(group)
    if found:
        raise UserError(*found.sentence.splitlines())


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def run_nodes(group: Group) -> Reason | None:
    """Let SLURM run an agent on each node of this job's allocation; return why they failed, or None.

    Raises:
        UserError: if there is no SLURM, or it cannot start them.
    """
    # The step shares the allocation with the one that this process runs in. Agents end at nearly the same time, or have
    # a minute to say why they did not.
    srun = [
        "srun",
        f"--nodes={group.nodes}",
        f"--ntasks={group.nodes}",
        "--ntasks-per-node=1",
        "--overlap",
        "--wait=60",
    ]
    agent = [sys.executable, "-m", "malmen.jobs.agent", json.dumps(asdict(group))]
    # The agent that ends last would warn, on the terminal, that it finds the first one's port closed.
    environment = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with forwarding_signals(signal.SIGTERM):  # To SIGINT, srun would only answer with a list of its tasks.
        try:
            done = subprocess.run([*srun, *agent], stdout=subprocess.PIPE, text=True, check=False, env=environment)
        except FileNotFoundError:
            raise UserError(
                f"A job is to run on {group.nodes} nodes, but there is no srun: SLURM starts it there; set nodes to 1."
            ) from None
    reasons = [Reason(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"place"')]
    if done.returncode and not reasons:
        raise UserError(f"srun ended with status {done.returncode}; what it printed, or {group.log}, says why.")
    return min(reasons, default=None)
