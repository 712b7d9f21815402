"""What a user sees while a job runs, and what it costs: progress lines with time left, time, peak memory."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import psutil
import torch
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
        unit: what is counted, to be put behind the total.
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
            last = now
    logger.info("%s: done in %s", what, tqdm.format_interval(time.monotonic() - start))


class PeakMemory:
    """Measures peak memory inside a ``with`` block, in bytes.

    On a CUDA device it is what the allocator held at most; on a CPU the largest resident size of this process, sampled
    every 10 ms, which counts the interpreter and libraries too (the kernel's own high-water mark cannot be reset
    everywhere).

    Args:
        device: the device.
        before: the peak of an earlier part of the same work.

    Attributes:
        peak_bytes: what was measured at most, on a GPU up to the last :meth:`update`.
    """

    forgotten_bytes = 0
    """What the allocator held at most in this process before its statistics were last reset."""

    def __init__(self, device: torch.device, before: int = 0) -> None:
        self.device = device
        self.peak_bytes = before

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            PeakMemory.forgotten_bytes = highest_allocated_bytes(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._process = psutil.Process()
            self._stop = threading.Event()
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.update()
        if self.device.type != "cuda":
            self._stop.set()
            self._sampler.join()
            self._take()

    def update(self) -> None:
        """Take in what the allocator has held so far; on a CPU this happens by itself."""
        if self.device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(self.device))

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self._take()

    def _take(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)


def highest_allocated_bytes(device: torch.device | None = None) -> int:
    """Return what the allocator of a GPU has held at most in this process, however often it was measured."""
    return max(PeakMemory.forgotten_bytes, torch.cuda.max_memory_allocated(device))
