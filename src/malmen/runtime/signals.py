"""Interruptions: signals that let a job finish its step and save, locks, and jobs that end with their workflow.

A signal outside :func:`deferring_signals` ends a job at once with an :class:`malmen.errors.InterruptedJobError`, so
that temporary files are removed and the user reads one sentence.
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from malmen.errors import InterruptedJobError
from malmen.runtime.rank_process import is_rank

logger = logging.getLogger("malmen")

ADVICE = "run the same command again to resume"
SAVE_SECONDS = 300.0
"""The default time between two saves of running work."""
ENDING: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a job to end."""


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Within this context, SIGTERM and SIGINT raise :class:`InterruptedJobError` in the main thread."""

    def end(number: int, _frame: FrameType | None) -> None:
        ignore_further_signals()
        raise InterruptedJobError(f"The job was ended by {signal.Signals(number).name}; {ADVICE}.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deferring_signals() -> Iterator[list[str]]:
    """Within this context, SIGTERM and SIGINT only add their names to the yielded list; a second one acts at once.

    A rank ignores a second one: its launcher passes on what a scheduler may have sent to all processes anyway.
    """
    noted: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        signal.signal(number, previous[number])
        ignore_further_signals()

    previous = {number: signal.getsignal(number) for number in ENDING}
    for number in previous:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        if not (noted and is_rank()):
            for number, handler in previous.items():
                signal.signal(number, handler)


def ignore_further_signals() -> None:
    """In a rank, ignore all signals after the first."""
    if is_rank():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def forwarding_signals(instead: int | None = None) -> Iterator[list[str]]:
    """Within this context, pass SIGTERM and SIGINT on to the child processes, and add their names to the yielded list.

    A second one kills the children.

    Args:
        instead: the signal that the children get for either; None for the same.

    Raises:
        InterruptedJobError: if there are no children yet.
    """
    noted: list[str] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        children = psutil.Process().children()
        if not children:
            raise InterruptedJobError(f"The job was ended by {noted[0]}; {ADVICE}.")
        for child in children:
            with suppress(psutil.Error):
                child.send_signal((instead or number) if len(noted) == 1 else signal.SIGKILL)

    previous = {number: signal.signal(number, forward) for number in ENDING}
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def exclusive_lock(path: Path, others: str = "An earlier run of this job is still ending") -> Iterator[None]:
    """Lock a file that stands for some work, such as a job's log, and wait while another process holds the lock.

    Args:
        path: the file.
        others: who may hold the lock, for the message that says what this process waits for.
    """
    with path.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: waiting (%s)", others, path)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            pass  # The file system has no locks: Snakemake's own must do.
        yield


def end_with_workflow(every_seconds: float = 1.0) -> None:
    """Send this job SIGTERM once the ``snakemake`` that started it is gone.

    ``kill -9`` of a workflow reaches none of its jobs, which would run on beside those of the next run.
    """
    workflow = next(filter(is_snakemake, psutil.Process().parents()), None)

    def watch(process: psutil.Process) -> None:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(every_seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    if workflow:
        threading.Thread(target=watch, args=(workflow,), daemon=True).start()


def is_snakemake(process: psutil.Process) -> bool:
    """Return whether a process runs Snakemake; False if its command line may not be read."""
    try:
        return any(Path(part).name in {"snakemake", "snakemake.exe"} for part in process.cmdline()[:4])
    except psutil.Error:
        return False
