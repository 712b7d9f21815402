"""Peak memory: of interrupted parts, and of a GPU whose allocator's statistics are reset between measurements."""

import pytest
import torch

from malmen.runtime.peak_memory import PeakMemory, highest_allocated_bytes

GPU = torch.device("cuda", 0)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An allocator's statistics: what it has held at most since they were reset."""
    peak = [0]
    monkeypatch.setattr(PeakMemory, "forgotten_bytes", 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _=None: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _=None: peak.__setitem__(0, 3))
    return peak


def test_a_jobs_peak_outlasts_the_reset_of_each_measurement(allocator: list[int]) -> None:
    peaks = []
    for held in (70, 90, 50):
        with PeakMemory(GPU) as memory:
            allocator[0] = held
        peaks.append(memory.peak_bytes)
    assert (peaks, allocator[0], highest_allocated_bytes()) == ([70, 90, 50], 50, 90)


def test_the_peak_before_an_interruption_counts(allocator: list[int]) -> None:
    with PeakMemory(GPU, before=60) as memory:
        allocator[0] = 50
        memory.update()
        assert memory.peak_bytes == 60
        allocator[0] = 80
        memory.update()
        assert memory.peak_bytes == 80  # as a state that is saved now holds it
    with PeakMemory(torch.device("cpu"), before=2**50) as resident:
        pass
    assert resident.peak_bytes == 2**50
