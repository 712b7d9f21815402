"""The lines that a job logs while it works."""

import itertools
import logging
import time
from collections.abc import Iterator

import pytest

from malmen.runtime.progress import clock, progress


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "00:00"), (59.9, "00:59"), (61, "01:01"), (3599, "59:59"), (3600, "1:00:00"), (360_000, "100:00:00")],
)
def test_a_span_of_time_is_written_as_on_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A clock that goes on by one second whenever it is read."""
    readings = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(readings)))
    return readings


@pytest.mark.usefixtures("seconds")
def test_lines_say_what_is_done_and_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "malmen")
    assert list(progress([2, 2, 2], 10, "Work", 2.0, before=4, weight=lambda item: item, unit="edits")) == [2, 2, 2]
    start, line, end = caplog.messages
    assert "4 of 10 edits" in start
    assert "8 of 10 edits" in line and "00:01 left" in line
    assert end.startswith("Work: ") and end.endswith("00:04")
