"""The order in which a run makes its figures and tables: always next the one of which least is left to do.

So the figures of small models come first, and on average a figure or table is there as early as can be without knowing
what its reader waits for. Every job takes the place of the first figure or table that needs it. The workflow turns the
places into priorities of Snakemake's, which runs the ready job of the highest priority first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from malmen.plan.estimate import Time
from malmen.plan.jobs import CostedJob


@dataclass(frozen=True)
class Target:
    """A figure or table.

    Attributes:
        name: its name in the configuration.
        jobs: those that lead to it, and the one that makes it.
        there_after: how long a run takes until it is there, if its jobs that run a model follow one another.
    """

    name: str
    jobs: tuple[CostedJob, ...]
    there_after: Time

    @property
    def with_model(self) -> list[CostedJob]:
        """The jobs that run a model."""
        return [job for job in self.jobs if job.cost.time is not None]


def in_order(jobs: Iterable[CostedJob]) -> list[Target]:
    """Return the figures and tables that jobs make, in the order in which a run makes them."""
    jobs = list(jobs)
    made_by = {output: job for job in jobs for output in job.job.outputs}
    waiting = {name: needed_by(job, made_by) for name, job in drawings(jobs).items()}
    done: set[str] = set()
    passed = Time()
    targets = []
    while waiting:
        left = {
            name: [job for key, job in needed.items() if key not in done] for name, needed in sorted(waiting.items())
        }
        nearest = min(left, key=lambda name: (mean(together(left[name])), len(left[name])))
        passed += together(left[nearest])
        needed = waiting.pop(nearest)
        done |= set(needed)
        targets.append(Target(nearest, tuple(needed.values()), passed))
    return targets


def priorities(jobs: Iterable[CostedJob]) -> dict[str, int]:
    """Return the priority of every job that leads to a figure or table, by its name: the last one's is 1."""
    found: dict[str, int] = {}
    for priority, target in enumerate(reversed(in_order(jobs)), start=1):
        found |= dict.fromkeys((job.job.name for job in target.jobs), priority)
    return found


def drawings(jobs: Sequence[CostedJob]) -> dict[str, CostedJob]:
    """Return the jobs that make a figure or table of the configuration, by its name."""
    outputs = [(Path(job.job.outputs[0]), job) for job in jobs if job.job.outputs and job.job.rule != "write_compute"]
    return {path.stem: job for path, job in outputs if path.parent.name in ("figures", "tables")}


def needed_by(target: CostedJob, made_by: Mapping[str, CostedJob]) -> dict[str, CostedJob]:
    """Return a job and all that it depends on, directly or through others, by their names."""
    needed, waiting = {target.job.name: target}, [target]
    while waiting:
        for file in waiting.pop().job.inputs:
            job = made_by.get(file)
            if job and job.job.name not in needed:
                needed[job.job.name] = job
                waiting.append(job)
    return needed


def together(jobs: Iterable[CostedJob]) -> Time:
    """Return how long jobs take one after the other."""
    return sum((job.cost.time for job in jobs if job.cost.time is not None), Time())


def mean(time: Time) -> float:
    """Return the middle of a range of time, in seconds."""
    return (time.low + time.high) / 2
