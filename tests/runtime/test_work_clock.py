import time

import pytest
import torch

from malmen.runtime.work_clock import work_seconds


def test_waiting_is_no_work_on_a_cpu() -> None:
    start = work_seconds(torch.device("cpu"))
    time.sleep(0.2)
    assert work_seconds(torch.device("cpu")) - start < 0.1


def test_computing_is_work_on_a_cpu() -> None:
    start = work_seconds(torch.device("cpu"))
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert work_seconds(torch.device("cpu")) - start >= 0.1


def test_on_a_gpu_the_clock_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    device = torch.device("cuda", 0)
    start = work_seconds(device)
    time.sleep(0.05)
    assert work_seconds(device) - start >= 0.05
    assert waited == [device, device]
