"""Runs a function on several ranks: processes on this machine that share its work over gloo."""

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from malmen.runtime import ranks

Result = TypeVar("Result")


def on_ranks(size: int, function: Callable[..., Result], *args: Any) -> list[Result]:
    """Return what a function of a module returns on each of ``size`` ranks; it and its arguments must be picklable."""
    with tempfile.TemporaryDirectory() as folder:
        start_processes(run, (size, folder, function, args), nprocs=size, start_method="spawn")
        return [pickle.loads(Path(folder, str(rank)).read_bytes()) for rank in range(size)]


def run(rank: int, size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Be one of the ranks."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks._JOINED = ranks.Ranks(rank, size)
    Path(folder, str(rank)).write_bytes(pickle.dumps(function(*args)))
    ranks.leave()
