"""How much is run at once: what memory allows, found out by trying.

A sum over batches does not depend on how they are cut, so where memory runs out the batch that failed is run again in
halves, and nothing that was added before is lost.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from malmen.errors import DoesNotFitError
from malmen.runtime.progress import logger

Item = TypeVar("Item")
Result = TypeVar("Result")

FASTER = 1.1
"""A size that grows must bring so many times the items per second, or it grows no further."""


@dataclass
class Size:
    """How many items are run at once, by what was learned so far.

    Attributes:
        items: so many.
        growing: whether twice as many are tried next: on a GPU, where a larger batch can be much faster. On a CPU sizes
            never depend on time, so that two runs round alike.
        speed: items a second at the last size that was tried; 0 before any.
        device: where they are run, if it works on while Python goes on.
    """

    items: int
    growing: bool = False
    speed: float = 0.0
    device: torch.device | None = None

    @classmethod
    def on(cls, device: torch.device, items: int, automatic: bool) -> "Size":
        """Return a size for a device: on a GPU, one that is chosen automatically grows."""
        return cls(items, growing=automatic and device.type == "cuda", device=device)

    def settle(self) -> None:
        """Before the time is taken, wait for what a GPU has yet to do: launching its work takes next to none."""
        if self.growing and self.device:
            torch.cuda.synchronize(self.device)

    def observe(self, n: int, seconds: float) -> None:
        """Learn from ``n`` items that fitted and took so long; a smaller rest tells nothing."""
        if not self.growing or n < self.items:
            return
        speed = n / seconds
        self.growing = speed > FASTER * self.speed
        self.items *= 2 if self.growing else 1
        self.speed = speed


def in_parts(
    items: Sequence[Item],
    size: Size,
    work: Callable[[Sequence[Item]], Result],
    what: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Result]:
    """Yield what ``work`` makes of the items, a few at a time in their order.

    ``work`` must change nothing before it can no longer run out of memory: it is called again for half of the items.

    Args:
        items: what is to be done.
        size: how many at once; learns.
        work: what is done with some of them.
        what: one of the items and what is done with it, for a message.
        clock: the time in seconds.

    Raises:
        DoesNotFitError: if a single item is too much.
    """
    start = 0
    while start < len(items):
        part = items[start : start + size.items]
        size.settle()
        began = clock()
        results, missing = attempt(work, part)
        if results:
            size.settle()
            size.observe(len(part), clock() - began)
            start += len(part)
            yield results[0]
        elif len(part) == 1:
            raise DoesNotFitError(does_not_fit(what, missing))
        else:
            size.items, size.growing = max(1, len(part) // 2), False
            logger.info(
                "%s: %d at once do not fit into memory (%s), %d from now on", what, len(part), missing, size.items
            )


def attempt(work: Callable[[Sequence[Item]], Result], part: Sequence[Item]) -> tuple[list[Result], str]:
    """Return the result in a list or, if memory ran out, an empty list and what could not be had."""
    try:
        return [work(part)], ""
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        missing = missing_memory(error)
        if missing is None:
            raise
    # Behind the except clause the error, and the tensors that its traceback holds, are gone.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return [], missing


@contextmanager
def whole_in_memory(what: str) -> Iterator[None]:
    """Inside the ``with`` block is done what cannot be done in parts; ``what`` names it.

    Raises:
        DoesNotFitError: if memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        missing = missing_memory(error)
        if missing is None:
            raise
        raise DoesNotFitError(does_not_fit(what, missing)) from None


def does_not_fit(what: str, missing: str) -> str:
    """Say that memory does not hold something, and what to do."""
    return f"{what} does not fit into memory ({missing}); use a device with more, or a smaller model."


def missing_memory(error: MemoryError | RuntimeError) -> str | None:
    """Return what could not be had, in words, if an error says that memory ran out; None for any other error."""
    text = str(error)
    out = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text
    if not out and "CUBLAS_STATUS_ALLOC_FAILED" not in text:
        return None
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?(?:[KMGT]i?B|bytes))", text)
    return f"{asked[1]} more are needed" if asked else "how much more is needed is not known"
