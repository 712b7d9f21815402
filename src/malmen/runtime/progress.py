"""What a user sees while a job runs: progress lines with the time left."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

NETWORK = 50e6
"""Bytes per second by which the time of a fetch is told: an assumption."""

logger = logging.getLogger("malmen")

T = TypeVar("T")


def progress(
    items: Iterable[T],
    total: int,
    what: str,
    every_seconds: float = 10.0,
    before: int = 0,
    weight: Callable[[T], int] = lambda _: 1,
    unit: str = "",
    brief: bool = False,
) -> Iterator[T]:
    """Pass items on, logging "WHAT: 12 of 60, 00:34 left" every few seconds and a line at the end.

    Whole lines rather than a redrawn bar: jobs run side by side, and logs must stay readable.

    Args:
        items: what is passed on.
        total: the sum of the weights of all items.
        what: the name of the work.
        every_seconds: time between two lines.
        before: the part of the total that an interrupted run has done.
        weight: the number of units that an item counts for.
        unit: what is counted, printed after the total.
        brief: whether to log nothing at all if the work ends before its first line is due.
    """
    start = last = time.monotonic()
    of_all = f"of {total} {unit}".rstrip()
    if before:
        logger.info("%s: resuming after %d %s", what, before, of_all)
    done = before
    for item in items:
        done += weight(item)
        yield item
        now = time.monotonic()
        if now - last >= every_seconds and done < total:
            left = (now - start) / (done - before) * (total - done)
            logger.info("%s: %d %s, %s left", what, done, of_all, clock(left))
            last, brief = now, False
    if not brief:
        logger.info("%s: done in %s", what, clock(time.monotonic() - start))


def clock(seconds: float) -> str:
    """Return a time span as ``MM:SS``, or as ``H:MM:SS`` from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
