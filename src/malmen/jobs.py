"""What every job of the workflow does around its work: a log, progress on the terminal, errors in one sentence."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malmen.errors import UserError
from malmen.interruption import alone, end_with_workflow, heeding_signals

logger = logging.getLogger("malmen")


@contextmanager
def job(log: str) -> Iterator[None]:
    """Log to a file and to standard error; end with exit code 1 and one sentence on a :class:`UserError`.

    The job ends with its workflow, and only one run of it does anything at a time.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("  %(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers = [file, terminal]
    end_with_workflow()
    try:
        with alone(path), heeding_signals():
            yield
    except UserError as error:
        logger.error("Error: %s", error)
        sys.exit(1)
    except Exception:
        # A defect: the log keeps the traceback.
        file.handle(logger.makeRecord("malmen", logging.ERROR, "", 0, "failed", (), sys.exc_info()))
        raise
