"""A process as one rank of a job: its end with the process that launched it, and how it says why it ended.

This module loads without torch, because the frame of every job asks it.
"""

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn, TextIO

LAUNCHER = "MALMEN_LAUNCHER"
"""The environment variable with the number of the process that launched the ranks."""
FAILED, INTERRUPTED, LOST = 1, 3, 4
"""How a rank exits after an error of its own, after a signal, and where another rank or the launcher ended."""


def is_rank() -> bool:
    """Return whether this process was launched as one of several ranks."""
    return LAUNCHER in os.environ


def rank_number() -> int:
    """Return this rank's number, counted from 0."""
    return int(os.environ["RANK"])


def end_with_launcher(every_seconds: float = 0.5) -> None:
    """End this process at once when its launcher is gone, from a thread: the main one may wait for other ranks."""

    def watch(launcher: int) -> None:
        while os.getppid() == launcher:
            time.sleep(every_seconds)
        os._exit(LOST)

    threading.Thread(target=watch, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def print_into(log: Path) -> TextIO:
    """Let what libraries print go to a log, and return the terminal."""
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
    with log.open("a", encoding="utf-8") as stream:
        for printed in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), printed.fileno())
    return terminal


def end(status: int, sentence: str = "") -> NoReturn:
    """End this rank at once, without waiting for communication under way; the launcher finds the sentence.

    It looks for it where torch's agent looks for errors.
    """
    if sentence and (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        Path(file).write_text(json.dumps({"message": sentence, "timestamp": int(time.time())}), encoding="utf-8")
    logging.shutdown()
    os._exit(status)
