"""The frame of every job of the workflow: a log, progress, errors in one sentence, and a record at the end.

Scripts import this module before others of the package, so that an import that fails is logged, too. Until the work
begins, nothing becomes garbage: the collector pauses, and later leaves alone what was imported. That saves a job that
loads torch and transformers four tenths of the time to start and to end.
"""

import gc
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from malmen.errors import InterruptedJobError, UserError, trouble
from malmen.provenance.recording import SnakemakeJob, Start, Work, gpu_peak_bytes, record_job, states
from malmen.runtime.gpus import claimed_gpus
from malmen.runtime.noted import NOTES
from malmen.runtime.rank_process import is_rank
from malmen.runtime.signals import end_with_workflow, exclusive_lock, signals_as_errors

logger = logging.getLogger("malmen")


@contextmanager
def job(task: SnakemakeJob) -> Iterator[None]:
    """Log the work in the ``with`` block, and write the job's record when it is done; of several ranks, the first does.

    The log goes to the job's file and to standard error. On a :class:`UserError` the program prints one sentence and
    exits with code 1. The job ends with its workflow, and only one run of it works at a time.

    Args:
        task: the variable ``snakemake`` of the script.
    """
    with job_frame(Path(task.log[0])), own_gpus(task):
        NOTES.clear()
        start = Start(states(task.input))
        yield
        script = Path(sys.modules["__main__"].__file__ or "")
        (record_shared_job if is_rank() else record_job)(task, script, start)


def record_shared_job(task: SnakemakeJob, script: Path, start: Start) -> None:
    """Write the record of a job that ranks share: the first one does, and the others wait for it."""
    import torch  # noqa: PLC0415 (ranks have loaded it; jobs without a model never do)

    from malmen.runtime.ranks import ranks, where  # noqa: PLC0415

    device = torch.device(task.params["machine"]["device"])
    mine = Work(where(device), gpu_peak_bytes=gpu_peak_bytes() if device.type == "cuda" else 0)
    work = ranks().gathered(mine)
    with ranks().together():
        if ranks().first:
            record_job(task, script, start, work)


def job_frame(log: Path) -> AbstractContextManager[None]:
    """Return the frame of a job's work, which may be that of one rank."""
    if not is_rank():
        return logged(log)
    from malmen.jobs.rank_frame import in_rank  # noqa: PLC0415 (only ranks have loaded torch by then)

    collect_garbage()
    return in_rank(log)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Do the same as :func:`job`, except for the record."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("  %(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers = [terminal]
    logging.raiseExceptions = False  # On a full disk, the job goes on without a log.
    collect_garbage()
    end_with_workflow()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        file = logging.FileHandler(path, mode="a", encoding="utf-8")  # Ranks write behind what others wrote.
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(file)
        with exclusive_lock(path), signals_as_errors():
            yield
    except (UserError, InterruptedJobError) as error:
        logger.error("Error: %s", error)
        sys.exit(1)
    except Exception as error:
        # The log keeps the traceback, because the cause may be a bug.
        logger.removeHandler(terminal)
        logger.exception("failed")
        sentence = trouble(error)
        if sentence is None:
            raise
        print(f"  Error: {sentence}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def own_gpus(task: SnakemakeJob) -> Iterator[None]:
    """Claim the GPUs of this node that Snakemake granted a job; its ranks have those that their launcher claimed.

    Raises:
        UserError: if they are fewer than its ranks.
    """
    machine: Mapping[str, Any] = task.params.get("machine") or {}
    if machine.get("device") != "cuda" or is_rank():
        yield
        return
    granted, nodes = int(task.resources.get("gpu", 0)), int(task.resources.get("nodes", 1))
    ranks = machine.get("ranks", 1)
    if 1 < ranks > granted:
        raise UserError(f"The job needs {ranks} GPUs, but got {granted}; run snakemake with --resources gpu={ranks}.")
    with claimed_gpus(granted // nodes):
        yield


def collect_garbage() -> None:
    """Let the garbage collector work again, except on what was imported."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def log_failed_import(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what ends a job's script before :func:`job` or :func:`logged` has begun; then do what Python does."""
    task = getattr(sys.modules["__main__"], "snakemake", None)
    if task and not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        log = Path(task.log[0])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(kind, error, trace)), encoding="utf-8")
    sys.__excepthook__(kind, error, trace)


if hasattr(sys.modules["__main__"], "snakemake"):  # This process is a job's.
    sys.excepthook = log_failed_import
    gc.disable()
