"""The plan of a configuration as text: the jobs that Snakemake names, and what they cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from malmen.audit.planned import PlannedJob, planned_jobs
from malmen.config.configuration import Config
from malmen.plan.estimate import COSTS, SPREAD, Estimate, Known, Time, cost_of
from malmen.plan.memory import GIGABYTE
from malmen.runtime.text import counted

OTHERS = "others"
"""The name of all rules that neither run a model nor take more than a little memory and disk."""
COLUMNS = "GPU GB: a job cannot run without it; full GB: a job then has room for all rows, which else lie in TMPDIR."
"""What the two columns of a GPU's memory mean."""


@dataclass(frozen=True)
class CostedJob:
    """A job that Snakemake names, and what it costs."""

    job: PlannedJob
    cost: Estimate

    @property
    def rule(self) -> str:
        """The rule under which the job's costs are counted."""
        return self.job.rule if self.job.rule in COSTS else OTHERS


def plan(configfile: Path, known: Known) -> list[CostedJob]:
    """Return all jobs of a configuration, whether or not they are done, with their costs.

    Args:
        configfile: the configuration.
        known: what is known of it.

    Raises:
        UserError: if Snakemake cannot resolve the jobs, or a model's shape or a data set's size is not known.
    """
    jobs = planned_jobs(configfile, Path.cwd())
    return [CostedJob(job, cost_of(known, job.rule, job.wildcards)) for job in jobs]


@dataclass(frozen=True)
class Total:
    """What jobs need together: their number and time, the longest's time, bytes of the largest, disk of all.

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

    @classmethod
    def of(cls, costs: Iterable[Estimate]) -> "Total":
        """Add up costs; on a CPU the memory where the model runs is a part of the main memory."""
        costs = list(costs)
        times = [cost.time for cost in costs if cost.time is not None]
        return cls(
            jobs=len(costs),
            time=sum(times, Time()) if times else None,
            longest=max(times, key=lambda time: time.high, default=None),
            least=max((cost.needs.least for cost in costs if cost.on_gpu), default=0.0),
            device=max((cost.needs.device for cost in costs if cost.on_gpu), default=0.0),
            memory=max((cost.needs.memory for cost in costs), default=0.0),
            disk=sum(cost.needs.disk for cost in costs),
        )

    def cells(self) -> tuple[str, ...]:
        """Return everything as text."""
        sizes = (self.least, self.device, self.memory, self.disk)
        return (f"{self.jobs:,}", *map(duration, (self.time, self.longest)), *map(in_gigabytes, sizes))


def table(jobs: Sequence[CostedJob], models: Iterable[str]) -> str:
    """Return the costs by rule and model, and in total."""
    lines = [row(("rule", "jobs", "time", "longest", "GPU GB", "full GB", "RAM GB", "disk GB"))]
    for rule in (*COSTS, OTHERS):
        if not (found := [job for job in jobs if job.rule == rule]):
            continue
        lines.append(row((rule, *total(found).cells())))
        for model in models:
            if some := [job for job in found if job.job.wildcards.get("model") == model]:
                lines.append(row((f"  {model}", *total(some).cells())))
    return "\n".join([*lines, row(("total", *total(jobs).cells()))])


def total(jobs: Iterable[CostedJob]) -> Total:
    """Add up the costs of jobs."""
    return Total.of(job.cost for job in jobs)


def table_by_target(jobs: Sequence[CostedJob]) -> str:
    """Return, for each figure and table, the jobs that run a model for it, and their time."""
    made_by = {output: job for job in jobs for output in job.job.outputs}
    drawings = [(Path(job.job.outputs[0]), job) for job in jobs if job.job.rule != "write_compute"]
    targets = {path.stem: job for path, job in drawings if path.parent.name in ("figures", "tables")}
    lines = [row(("figure or table", "jobs", "time"))]
    for name, target in sorted(targets.items()):
        needed = total(job for job in needed_by(target, made_by) if job.cost.time is not None)
        lines.append(row((name, f"{needed.jobs:,}", duration(needed.time))))
    return "\n".join(lines)


def needed_by(target: CostedJob, made_by: dict[str, CostedJob]) -> list[CostedJob]:
    """Return a job and all that it depends on, directly or through others."""
    needed, waiting = {target.job.name: target}, [target]
    while waiting:
        for file in waiting.pop().job.inputs:
            job = made_by.get(file)
            if job and job.job.name not in needed:
                needed[job.job.name] = job
                waiting.append(job)
    return list(needed.values())


def summary(costs: Sequence[Estimate], device: str) -> str:
    """Return one sentence with jobs, time, memory and disk."""
    total, where = Total.of(costs), "GPU" if device == "cuda" else "CPU"
    running = sum(cost.time is not None for cost in costs)
    memory = total.least if device == "cuda" else total.memory
    return (
        f"{counted(total.jobs, 'job')}, {running:,} of them with a model on a {where}: {duration(total.time)}, at most "
        f"{in_gigabytes(memory)} GB of {where} memory, {in_gigabytes(total.disk)} GB of disk (estimated)."
    )


def basis(known: Known) -> str:
    """Return what the times rest on."""
    rates, lengths = known.rates, known.lengths
    counted_at = (
        f"Times count operations: the shortest at {rates.float32:g} TFLOP/s in float32 and {rates.bfloat16:g} in "
        f"bfloat16, the longest at 1/{SPREAD:g} of these rates. A sequence has {lengths.sequence} tokens, an answer "
        f"{lengths.answer}."
    )
    if not known.on_gpu:
        return f"{counted_at} Jobs run on the CPU (device: cpu) with {counted(known.config.threads, 'thread')} each."
    return (
        f"{counted_at} The default rates are an A100's: the shortest time is right for the paper's MEMIT (33.75 h for "
        "16,384 facts on GPT-J), the longest for its MALMEN (12.25 h)."
    )


def models_to_pin(config: Config) -> str | None:
    """Say which models' revisions must be set before a configuration can be run; None if none must."""
    if not config.unpinned:
        return None
    keys = ", ".join(f"models.{name}.revision" for name in config.unpinned)
    return f"Before it can be run, set {keys}: each is the commit on the hub from which the weights are fetched."


def duration(time: Time | None) -> str:
    """Return a range of time in seconds, in minutes from one on, or in hours where it reaches two; "-" for none."""
    if time is None:
        return "-"
    if time.high < 60:
        low, high = math.ceil(time.low), math.ceil(time.high)
        return f"{low}-{high} s" if low < high else f"{high} s"
    if time.high < 7200:
        low, high = max(1, round(time.low / 60)), round(time.high / 60)
        return f"{low}-{high} min" if low < high else f"{high} min"
    return f"{in_hours(time.low)}-{in_hours(time.high)} h"


def in_hours(seconds: float) -> str:
    """Return hours with two significant digits, and at most one decimal."""
    hours = seconds / 3600
    return f"{hours:.1f}" if hours < 9.95 else f"{float(f'{hours:.2g}'):,.0f}"


def in_gigabytes(size: float) -> str:
    """Return bytes as gigabytes: "-" for none."""
    return f"{size / GIGABYTE:,.1f}" if size else "-"


WIDTHS = (-19, 5, 14, 13, 9, 9, 9, 9)
"""Of the columns of tables, in characters; the first is flush left."""


def row(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "".join(
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=False)
    )
