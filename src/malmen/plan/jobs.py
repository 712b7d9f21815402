"""The jobs that Snakemake names, and what they cost, alone and together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from malmen.audit.planned import Step, planned_jobs
from malmen.config.load import load_file
from malmen.plan.estimate import COSTS, Estimate, Known, Time, cost_of
from malmen.runtime.text import numbers

OTHERS = "others"
"""The name of all rules that neither run a model nor take more than a little memory and disk."""


@dataclass(frozen=True)
class CostedJob:
    """A job that Snakemake names, and what it costs."""

    job: Step
    cost: Estimate

    @classmethod
    def of(cls, job: Step, known: Known) -> "CostedJob":
        """Return a job with its cost; raise :class:`UserError` if a model's shape or a data set's size is not known."""
        return cls(job, cost_of(known, job.rule, job.wildcards))

    @property
    def rule(self) -> str:
        """The rule under which the job's costs are counted."""
        return self.job.rule if self.job.rule in COSTS else OTHERS

    @property
    def about(self) -> str:
        """How a message names the job: its rule, and the editor, model and largest m that it is for."""
        wildcards = self.job.wildcards
        about = " on ".join(wildcards[name] for name in ("editor", "model") if name in wildcards)
        largest = f" at m = {max(numbers(wildcards['n_edits']))}" if "n_edits" in wildcards else ""
        return f"{self.job.rule} ({about}{largest})" if about else self.job.rule

    def in_folder(self, root: Path) -> "CostedJob":
        """Return the job as it costs in a folder: what it has downloaded there already is not fetched again."""
        there = all((root / output).exists() for output in self.job.outputs)
        return replace(self, cost=replace(self.cost, download=0.0)) if there else self


def plan(configfile: Path, known: Known, overrides: Mapping[str, Any] | None = None) -> list[CostedJob]:
    """Return all jobs of a configuration, whether or not they are done, with their costs.

    Args:
        configfile: the configuration.
        known: what is known of it.
        overrides: what replaces values of the configuration.

    Raises:
        UserError: if Snakemake cannot resolve the jobs, or a model's shape or a data set's size is not known.
    """
    return [CostedJob.of(job, known) for job in planned_jobs(configfile, Path.cwd(), overrides)]


def with_one_seed(configfile: Path, known: Known, overrides: Mapping[str, Any]) -> list[CostedJob] | None:
    """Return the jobs that are left with the first of several seeds; None if there is only one (arguments as above)."""
    if len(known.config.seeds) == 1:
        return None
    fewer = {**overrides, "seeds": known.config.seeds[:1]}
    return plan(configfile, Known(load_file(configfile, fewer), known.rates, known.lengths), fewer)


@dataclass(frozen=True)
class Total:
    """What jobs need together: their number and time, the longest's time, bytes of the largest, disk and downloads.

    Times are those of a clock while a job runs, on however many GPUs; ``gpus`` is the largest number of them.

    Times are None if no job runs a model. Memory of a GPU is that without which a job cannot run, and that in which it
    has room for everything.
    """

    jobs: int
    time: Time | None
    longest: Time | None
    least: float
    device: float
    memory: float
    disk: float
    download: float
    gpus: int

    @classmethod
    def of(cls, jobs: Iterable[CostedJob]) -> "Total":
        """Add up the costs of jobs; on a CPU the memory where the model runs is a part of the main memory."""
        costs = [job.cost for job in jobs]
        times = [cost.time for cost in costs if cost.time is not None]
        return cls(
            jobs=len(costs),
            time=sum(times, Time()) if times else None,
            longest=max(times, key=lambda time: time.high, default=None),
            least=max((cost.needs.least for cost in costs if cost.on_gpu), default=0.0),
            device=max((cost.needs.device for cost in costs if cost.on_gpu), default=0.0),
            memory=max((cost.needs.memory for cost in costs), default=0.0),
            disk=sum(cost.needs.disk for cost in costs),
            download=sum(cost.download for cost in costs),
            gpus=max((cost.gpus for cost in costs), default=0),
        )
