"""The time left of a whole run, from what its jobs are expected to cost and from what those that are done took."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from malmen.plan.estimate import Known, cost_of

TRUST = 30.0
"""Seconds of planned work for which the plan counts, against what jobs took: the first short job turns nothing over."""


@dataclass(frozen=True)
class Expected:
    """A job to be done.

    Attributes:
        rule: its rule.
        seconds: how long it is planned to take.
    """

    rule: str
    seconds: float


def expected(known: Known, rule: str, wildcards: Mapping[str, str], starts_python: bool) -> Expected:
    """Return how long a job is planned to take; one without a model is over as soon as Python has started.

    Raises:
        UserError: if the plan does not know the model's shape.
    """
    time_needed = cost_of(known, rule, wildcards).time
    short = known.rates.start_seconds / 2 if starts_python else 0.0
    return Expected(rule, (time_needed.low + time_needed.high) / 2 if time_needed else short)


class TimeLeft:
    """How long the rest of a run takes.

    Jobs of a rule take so many times their planned time as those that are done did; before any is, as all jobs did. As
    many jobs run side by side as have on average.

    Args:
        jobs: the jobs to be done, by their numbers.
        clock: returns seconds.
    """

    def __init__(self, jobs: Mapping[int, Expected], clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs, self.clock = dict(jobs), clock
        self.begun = clock()
        self.running: dict[int, float] = {}
        self.waiting = set(self.jobs)
        self.took: dict[str, float] = defaultdict(float)
        self.planned: dict[str, float] = defaultdict(float)

    def start(self, numbers: Iterable[int]) -> None:
        """Note that jobs begin."""
        for number in self.waiting & set(numbers):
            self.waiting.remove(number)
            self.running[number] = self.clock()

    def finish(self, number: int) -> None:
        """Note that a job has ended."""
        if number in self.running:
            job = self.jobs[number]
            self.took[job.rule] += self.clock() - self.running.pop(number)
            self.planned[job.rule] += job.seconds

    def pace(self, rule: str) -> float:
        """Return how many times their planned time the jobs of a rule take."""
        of_all = (sum(self.took.values()) + TRUST) / (sum(self.planned.values()) + TRUST)
        return (self.took[rule] + TRUST * of_all) / (self.planned[rule] + TRUST)

    def seconds(self) -> float:
        """Return the time left."""
        now = self.clock()
        left = [self.pace(self.jobs[number].rule) * self.jobs[number].seconds for number in self.waiting]
        for number, begun in self.running.items():
            expected = self.pace(self.jobs[number].rule) * self.jobs[number].seconds
            left.append(max(expected - (now - begun), expected / 10))
        busy = sum(self.took.values()) + sum(now - begun for begun in self.running.values())
        side_by_side = max(busy / max(now - self.begun, 1e-9), 1.0)
        return max(sum(left) / side_by_side, max(left, default=0.0))


class ProgressFilter(logging.Filter):
    """Lets the time left follow each line of progress, and follows the jobs by what Snakemake logs.

    Args:
        logger: Snakemake's.
        left: the time left.
    """

    def __init__(self, logger: logging.Logger, left: TimeLeft) -> None:
        super().__init__()
        self.logger, self.left, self.said = logger, left, False

    def filter(self, record: logging.LogRecord) -> bool:
        """Note what starts and ends; return False for a line of progress, which is logged here."""
        event = str(getattr(record, "event", None) or "")
        if event == "job_started":
            self.left.start(getattr(record, "jobs", ()))
        elif event == "job_finished":
            self.left.finish(getattr(record, "job_id", -1))
        elif event == "progress" and not self.said and record.__dict__["done"] < record.__dict__["total"]:
            self.said = True
            self.logger.handle(record)
            self.said = False
            self.logger.info(f"{about(self.left.seconds()).capitalize()} left")  # Snakemake fills in nothing.
            return False
        return True


def about(seconds: float) -> str:
    """Return a time as one tells it: "less than a minute", "about 12 min", "about 2 h 10 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    return f"about {hours:,} h" + (f" {rest} min" if rest and hours < 10 else "")
