"""The time left of a run, on a clock that the tests turn."""

import pytest

from malmen.workflow.time_left import Expected, TimeLeft, about


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run_one(left: TimeLeft, clock: Clock, number: int, seconds: float) -> None:
    left.start([number])
    clock.now += seconds
    left.finish(number)


def test_before_anything_is_done_the_plan_counts() -> None:
    assert TimeLeft({1: Expected("train", 100), 2: Expected("train", 100)}, Clock()).seconds() == 200


def test_short_jobs_do_not_count_as_long_ones() -> None:
    clock = Clock()
    jobs = {number: Expected("draw", 0.1) for number in range(100)} | {100: Expected("train", 100)}
    left = TimeLeft(jobs, clock)
    for number in range(100):
        run_one(left, clock, number, 0.1)
    assert left.seconds() == pytest.approx(100)


def test_the_pace_of_a_rule_is_learnt_from_its_own_jobs() -> None:
    clock = Clock()
    kinds = ["train"] * 4 + ["measure"] * 4
    left = TimeLeft({number: Expected(rule, 1000) for number, rule in enumerate(kinds)}, clock)
    for number in range(2):
        run_one(left, clock, number, 2000)
    for number in range(4, 6):
        run_one(left, clock, number, 500)
    assert left.seconds() == pytest.approx(2 * 2000 + 2 * 500, rel=0.05)


def test_jobs_that_run_side_by_side_are_counted_as_such() -> None:
    clock = Clock()
    left = TimeLeft({number: Expected("train", 100) for number in range(8)}, clock)
    left.start([0, 1])
    clock.now += 100
    left.finish(0)
    left.finish(1)
    assert left.seconds() == pytest.approx(300)


def test_what_a_running_job_has_done_counts_and_the_rest_is_never_negative() -> None:
    clock = Clock()
    left = TimeLeft({1: Expected("train", 100)}, clock)
    left.start([1])
    clock.now = 60
    assert left.seconds() == pytest.approx(40)
    clock.now = 5000
    assert left.seconds() == pytest.approx(10)
    left.finish(1)
    assert left.seconds() == 0


def test_a_short_surprise_at_the_beginning_turns_nothing_over() -> None:
    clock = Clock()
    left = TimeLeft({0: Expected("data", 1), 1: Expected("train", 3600)}, clock)
    run_one(left, clock, 0, 30)
    assert left.seconds() < 3 * 3600


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a minute"),
        (29, "less than a minute"),
        (45, "about 1 min"),
        (725, "about 12 min"),
        (3600, "about 1 h"),
        (7850, "about 2 h 10 min"),
        (86_400 * 50, "about 1,200 h"),
    ],
)
def test_a_time_is_told_in_words(seconds: float, text: str) -> None:
    assert about(seconds) == text
