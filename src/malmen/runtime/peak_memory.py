"""Peak memory of a piece of work on a CPU or a GPU."""

import threading
from types import TracebackType

import psutil
import torch


class PeakMemory:
    """Measures peak memory inside a ``with`` block, in bytes.

    On a CUDA device it is the peak of the allocator. On a CPU it is the largest resident size of this process, sampled
    every 10 ms, with the interpreter and libraries (the kernel's own high-water mark cannot be reset everywhere).

    Args:
        device: the device.
        before: the peak of an earlier part of the same work.

    Attributes:
        peak_bytes: the peak so far; on a GPU, up to the last :meth:`update`.
    """

    forgotten_bytes = 0
    """The allocator's peak in this process before its statistics were last reset."""

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
        """Update the peak from the allocator; on a CPU the sampling thread does so."""
        if self.device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(self.device))

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self._take()

    def _take(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)


def highest_allocated_bytes(device: torch.device | None = None) -> int:
    """Return the peak of a GPU's allocator in this process, across all resets of its statistics."""
    return max(PeakMemory.forgotten_bytes, torch.cuda.max_memory_allocated(device))
