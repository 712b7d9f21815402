"""A training that several processes of this machine share: the command that the user typed runs in each of them.

It is the way of :mod:`malmen.jobs.on_ranks` for a command: its launcher has no job, but checks the machine itself.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

from malmen.errors import UserError
from malmen.jobs.common import Machine
from malmen.jobs.on_ranks import launch
from malmen.jobs.rank_frame import in_rank
from malmen.own_facts.model import usable_device
from malmen.runtime.files import beside
from malmen.runtime.gpus import claimed_gpus
from malmen.runtime.progress import logger
from malmen.runtime.rank_process import end_with_launcher, is_rank
from malmen.runtime.ranks import join
from malmen.runtime.text import counted


@contextmanager
def on_ranks(n: int, device: str, out: Path) -> Iterator[TextIO | None]:
    """Share the work in the ``with`` block among ``n`` processes.

    With one process nothing happens. Otherwise the process that the user started launches the others and exits after
    them; each of these joins the others and does the work. An error of one of them ends all.

    Args:
        n: how many processes there are.
        device: "cpu", "cuda" or "auto", as in :meth:`malmen.own_facts.model.ModelSource.load`.
        out: the folder of the results. The log of the processes lies beside it, until they succeed.

    Yields:
        where to print results; None for standard output, which all processes but the first have in the log.

    Raises:
        UserError: if there are fewer GPUs than processes, or one of these failed.
    """
    log = beside(out.resolve(), ".processes.log")
    if n == 1:
        log.unlink(missing_ok=True)  # what failed before
        yield None
        return
    if not is_rank():
        launch_here(n, usable_device(device), log)
        sys.exit()
    end_with_launcher()
    terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace")
    logger.handlers = []  # A rank has others.
    with in_rank(log):
        joined = join(usable_device(device))
        yield terminal if joined.first else None


def launch_here(n: int, device: str, log: Path) -> None:
    """Run this process's command in ``n`` ranks, and wait until all have ended.

    Raises:
        UserError: if there are fewer GPUs than ranks, or a rank failed.
    """
    if device == "cuda" and (found := torch.cuda.device_count()) < n:
        raise UserError(f"--processes {n} takes a GPU for each process, but torch finds {found}; lower --processes.")
    machine = Machine(device, max(1, torch.get_num_threads() // n), n)
    each = "a GPU" if device == "cuda" else counted(machine.threads, "thread")
    logger.info("%d processes share the training, each with the whole model and %s.", n, each)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with claimed_gpus(n if device == "cuda" else 0):
        launch(machine, 1, log)
    log.unlink(missing_ok=True)
