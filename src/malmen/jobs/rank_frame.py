"""The frame of one rank's work: the log that its launcher opened, and no error of its own on the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malmen.errors import InterruptedJobError, UserError, first_line, trouble
from malmen.runtime.progress import logger
from malmen.runtime.rank_process import FAILED, INTERRUPTED, LOST, end, print_into, rank_number
from malmen.runtime.ranks import RankLostError
from malmen.runtime.signals import signals_as_errors


@contextmanager
def in_rank(path: Path) -> Iterator[None]:
    """Log the work in the ``with`` block; an error ends this process, and its launcher says why.

    The first rank shows its progress on the terminal. The others only log warnings, after their number.

    Args:
        path: the log of the job.
    """
    if not logger.handlers:
        log_to(path)
    try:
        with signals_as_errors():
            yield
    except InterruptedJobError as error:
        end(INTERRUPTED, str(error))
    except UserError as error:
        end(FAILED, str(error))
    except Exception as error:
        logger.handlers = logger.handlers[:1]
        if isinstance(error, RankLostError):
            logger.warning("%s", error)
            end(LOST)
        # The log keeps the traceback, because the cause may be a bug.
        logger.exception("failed")
        said = f"{type(error).__name__}: {first_line(error)}"
        end(FAILED, trouble(error) or f"Rank {rank_number()} of this job failed ({said}); {path} says where.")


def log_to(path: Path) -> None:
    """Let this process log to a file and, in the first rank, to the terminal."""
    terminal, number = print_into(path), rank_number()
    file = logging.FileHandler(path, mode="a", encoding="utf-8")
    who = f"rank {number}: " if number else ""
    file.setFormatter(logging.Formatter(f"%(asctime)s {who}%(message)s"))
    logger.handlers = [file]
    logger.setLevel(logging.WARNING if number else logging.INFO)
    logging.raiseExceptions = False  # On a full disk, the job goes on without a log.
    if number == 0:
        shown = logging.StreamHandler(terminal)
        shown.setFormatter(logging.Formatter("  %(message)s"))
        logger.addHandler(shown)
