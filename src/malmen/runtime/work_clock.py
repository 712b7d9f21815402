"""The clock by which trainings and edits are timed: other jobs on the same machine must not change the result."""

import time

import torch

from malmen.runtime.ranks import ranks


def work_seconds(device: torch.device) -> float:
    """Return the time of this process's work up to now; only differences have a meaning.

    On a CPU, jobs run side by side, so this is processor time, summed over threads. A GPU runs one job at a time, so
    this is wall time, once the GPU has done what it was given.
    """
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of_all_ranks(seconds: float, device: torch.device) -> float:
    """Return the time of work that all ranks shared: on a CPU the sum of their times, on a GPU that of the slowest."""
    each = [own for (own,) in ranks().numbers(seconds)]
    return max(each) if device.type == "cuda" else sum(each)
