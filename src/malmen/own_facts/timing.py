"""The wall time of a piece of work, for estimates that are told before long work begins."""

import time
from collections.abc import Callable

import torch


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Return the wall time of some work, from when a GPU is free until it has done what it was given."""
    wait_for(device)
    began = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
