"""Batch sizes that adapt to memory.

A sum over batches does not depend on how the items are divided. So when memory runs out, only the failed batch runs
again, in halves.
"""

import re
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from malmen.errors import DoesNotFitError
from malmen.runtime.noted import NOTES
from malmen.runtime.progress import logger
from malmen.runtime.ranks import ranks

Item = TypeVar("Item")
Result = TypeVar("Result")

FASTER = 1.1
"""Gain in items per second below which a batch size stops growing."""


@dataclass
class Size:
    """A batch size that learns from each batch.

    Attributes:
        items: the batch size.
        growing: whether the next batch is twice as large. Only sizes on a GPU grow; on a CPU they never depend on
            time, so that two runs round alike.
        speed: items per second at the last size; 0 before the first batch.
        device: the device, if it works asynchronously.
        halved: whether memory once ran out at a larger size.
    """

    items: int
    growing: bool = False
    speed: float = 0.0
    device: torch.device | None = None
    halved: bool = field(default=False, compare=False)

    @classmethod
    def on(cls, device: torch.device, items: int, automatic: bool) -> "Size":
        """Return a size for a device; it grows if it is automatic and the device is a GPU."""
        return cls(items, growing=automatic and device.type == "cuda", device=device)

    def settle(self) -> None:
        """Wait until the GPU is idle, so that a time measured next includes its work."""
        if self.growing and self.device:
            torch.cuda.synchronize(self.device)

    def fit(self, items: int) -> None:
        """Take a size that fits into memory where a larger one did not."""
        self.items, self.growing, self.halved = items, False, True

    def observe(self, n: int, seconds: float) -> None:
        """Learn from a batch of ``n`` items that fitted; a last batch smaller than the others does not count."""
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
    purpose: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Result]:
    """Yield the results of ``work`` for batches of the items, in order.

    Args:
        items: the items.
        size: the batch size; it learns from every batch.
        work: called with each batch, and again with half of it if memory runs out. So it must change nothing before its
            last allocation.
        what: describes one item and its work, for messages.
        purpose: names the work in the job's notes of batch sizes; by default ``what``.
        clock: returns the time in seconds.

    Raises:
        DoesNotFitError: if a single item does not fit into memory.
    """
    start = 0
    while start < len(items):
        part = items[start : start + size.items]
        size.settle()
        began = clock()
        results, missing = attempt(work, part)
        if results:
            size.settle()
            NOTES.used(purpose or what, size.items)
            size.observe(len(part), clock() - began)
            start += len(part)
            yield results[0]
        elif len(part) == 1:
            raise DoesNotFitError(does_not_fit(what, missing))
        else:
            size.fit(max(1, len(part) // 2))
            logger.info(
                "%s: %d at once do not fit into memory (%s), %d from now on", what, len(part), missing, size.items
            )


def agree_on_sizes(*learned: MutableMapping[tuple[str, Any], Size]) -> None:
    """Let no batch size on any rank be larger than the one to which another rank's memory has brought it down.

    Collective (:mod:`malmen.runtime.ranks`). Where no memory ran out, nothing changes: a size that grows, grows as each
    rank finds it faster.

    Args:
        learned: sizes by purpose and setting, in the same order on all ranks. Each rank may lack some purposes; one
            that it lacks begins with the size of the others.
    """
    here = ranks()
    if here.alone:
        return
    halved = [{purpose: size.items for purpose, size in sizes.items() if size.halved} for sizes in learned]
    for rank, found in enumerate(here.gathered(halved)):
        for sizes, others in zip(learned, found, strict=True):
            for purpose, items in others.items():
                size = sizes.setdefault(purpose, Size(items, halved=True))
                if size.items > items:
                    logger.info("%s: %d at once from now on: rank %d has memory for no more", purpose[0], items, rank)
                    size.fit(items)


def attempt(work: Callable[[Sequence[Item]], Result], part: Sequence[Item]) -> tuple[list[Result], str]:
    """Return the result in a list or, if memory ran out, an empty list and the size of the failed allocation."""
    try:
        return [work(part)], ""
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        missing = missing_memory(error)
        if missing is None:
            raise
    # After the except clause, the error and the tensors in its traceback are freed.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return [], missing


@contextmanager
def whole_in_memory(what: str) -> Iterator[None]:
    """Raise DoesNotFitError if memory runs out in the ``with`` block, whose work cannot be divided.

    ``what`` names the work in the message.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        missing = missing_memory(error)
        if missing is None:
            raise
        raise DoesNotFitError(does_not_fit(what, missing)) from None


def does_not_fit(what: str, missing: str) -> str:
    """Return the message that something does not fit into memory."""
    return f"{what} does not fit into memory ({missing}); use a device with more, or a smaller model."


def missing_memory(error: MemoryError | RuntimeError) -> str | None:
    """Describe the failed allocation if an error says that memory ran out; return None for any other error."""
    text = str(error)
    out = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text
    if not out and "CUBLAS_STATUS_ALLOC_FAILED" not in text:
        return None
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?(?:[KMGT]i?B|bytes))", text)
    return f"{asked[1]} more are needed" if asked else "how much more is needed is not known"
