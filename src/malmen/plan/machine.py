"""What this machine holds, and whether it can hold a run; torch is not imported."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from malmen.plan.jobs import CostedJob
from malmen.plan.report import in_gigabytes
from malmen.runtime.gpus import visible_gpus
from malmen.runtime.text import counted

OVERRIDE = "check_machine: false"
"""The key of a configuration that lets a run start nevertheless."""


@dataclass(frozen=True)
class Capacity:
    """What a machine holds, in bytes.

    Attributes:
        disk: free space of the project's disk, and what results on it take already.
        memory: main memory; None if it is not to be compared, as jobs run elsewhere.
        gpu: memory of the largest GPU; None if none is seen.
    """

    disk: float
    memory: float | None
    gpu: float | None

    @classmethod
    def here(cls, results: Sequence[Path], jobs_run_here: bool = True) -> "Capacity":
        """Look at this machine.

        Args:
            results: folders whose files a run would write; they need not exist.
            jobs_run_here: whether jobs run on this machine, and not on a cluster that shares its disk.
        """
        disk = shutil.disk_usage(Path.cwd()).free + sum(map(size_of, results))
        if not jobs_run_here:
            return cls(disk, None, None)
        return cls(disk, psutil.virtual_memory().total, largest_gpu())

    def shortage(self, run: str, jobs: Sequence[CostedJob]) -> str | None:
        """Say in one sentence what the jobs of a run need that this machine lacks; None if it can hold them."""
        lacking = []
        on_gpu = [job.cost.needs.least if job.cost.on_gpu else 0.0 for job in jobs]
        in_main = [job.cost.needs.memory for job in jobs]
        for what, there, needs in (("GPU memory", self.gpu, on_gpu), ("main memory", self.memory, in_main)):
            largest = max(needs, default=0.0)
            if there is not None and largest > there:
                size, name = in_gigabytes(largest), jobs[needs.index(largest)].about
                lacking.append(f"{name} needs {size} GB of {what}, and there are {in_gigabytes(there)}")
        disk = sum(job.cost.needs.disk for job in jobs)
        if disk > self.disk:
            lacking.append(f"its results need {in_gigabytes(disk)} GB of disk, and {in_gigabytes(self.disk)} are free")
        if not lacking:
            return None
        return (
            f"This machine cannot hold the run {run!r}: {'; '.join(lacking)}. Take a larger machine or a smaller "
            f"n_edits; these are estimates, so {OVERRIDE} starts the run nevertheless."
        )


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder; 0 if there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def largest_gpu() -> float | None:
    """Return the memory of the largest GPU that ``nvidia-smi`` sees, in bytes; None if it sees none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={chosen}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return max(float(line) * 2**20 for line in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def too_few_gpus(jobs: Sequence[CostedJob], granted: int | None = None, here: bool = True) -> str | None:
    """Say in one sentence that a job takes more GPUs than it can get; None if none does.

    Args:
        jobs: those to be done.
        granted: how many GPUs Snakemake may give to jobs at a time, to which it would lower what the job asks for;
            None for any number.
        here: whether jobs run on this machine.
    """
    largest = max(jobs, key=lambda job: (job.cost.gpus, job.about), default=None)
    if largest is None or (needed := largest.cost.gpus) == 0:
        return None
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))  # of the allocation inside which this runs
    there = nodes * len(visible_gpus()) if here and needed > 1 else 0
    if 0 < there < needed:
        where = "this machine has" if nodes == 1 else f"these {nodes} nodes have"
        return f"{largest.about} takes {needed} GPUs, and {where} {there}; set the model's gpus to {there}."
    if granted is not None and granted < needed:
        takes = f"{largest.about} takes {counted(needed, 'GPU')}"
        return f"{takes}, but jobs are given {granted}; add --resources gpu={needed}."
    return None


def missing_gpu(run: str) -> str | None:
    """Say in one sentence that a run needs a GPU and this machine has none; None if torch finds one.

    Torch is asked, in a process of its own, since it may find none where there is one: if it was built for CPUs, or the
    driver is too old. Where it is not installed nothing is known, and nothing said.
    """
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.split()[-1:] != ["False"]:
        return None
    return (
        f"The run {run!r} needs a GPU (device: cuda), but torch finds none here; set device: cpu, or run where "
        "there is one."
    )
