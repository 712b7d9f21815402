"""What a user sees while a job runs: progress lines with the time left."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

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
    """Pass items on, logging "WHAT: 12 of 60, 0:34 left" every few seconds and a line at the end.

    Whole lines rather than a redrawn bar: jobs run side by side, and logs must stay readable.

    Args:
        items: what is passed on.
        total: the sum of the weights of all items.
        what: what is done.
        every_seconds: so often a line is logged.
        before: so much of the total was done in a run that was interrupted.
        weight: as how many an item counts.
        unit: what is counted, to be put after the total.
        brief: whether to log nothing at all if the work ends before its first line is due.
    """
    start = last = time.monotonic()
    of_all = f"of {total} {unit}".rstrip()
    if before:
        logger.info("%s: goes on behind %d %s", what, before, of_all)
    done = before
    for item in items:
        done += weight(item)
        yield item
        now = time.monotonic()
        if now - last >= every_seconds and done < total:
            left = tqdm.format_interval((now - start) / (done - before) * (total - done))
            logger.info("%s: %d %s, %s left", what, done, of_all, left)
            last, brief = now, False
    if not brief:
        logger.info("%s: done in %s", what, tqdm.format_interval(time.monotonic() - start))
