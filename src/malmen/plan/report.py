"""The plan of a configuration as text: what its jobs cost by rule, what is fetched, and when each figure is there."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from malmen.config.configuration import Config
from malmen.plan.estimate import COSTS, SPREAD, Known, Time
from malmen.plan.jobs import OTHERS, CostedJob, Total
from malmen.plan.memory import GIGABYTE
from malmen.plan.order import in_order
from malmen.runtime.progress import NETWORK
from malmen.runtime.text import counted

COLUMNS = "GPU GB: a job cannot run without it; full GB: a job then has room for all rows, which else lie in TMPDIR."
"""What the two columns of a GPU's memory mean."""
FETCHING = ("fetch_model", "fetch_translator", "download_source")
"""The rules that fetch something over the network."""


def tables(jobs: Sequence[CostedJob], known: Known) -> Iterator[str]:
    """Yield what jobs cost by rule, what they fetch, and when figures and tables are there; without empty tables."""
    yield table(jobs, known.config.models)
    if downloads := table_of_downloads(jobs, known.config):
        yield downloads
    if known.config.figures or known.config.tables:
        yield f"{table_by_target(jobs)}\n{order(jobs)}"


def table(jobs: Sequence[CostedJob], models: Iterable[str]) -> str:
    """Return the costs by rule and model, and in total."""
    lines = [row(("rule", "jobs", "time", "longest", "GPU GB", "full GB", "RAM GB", "disk GB"))]
    for rule in (*COSTS, OTHERS):
        if not (found := [job for job in jobs if job.rule == rule]):
            continue
        lines.append(costs_row(rule, found))
        for model in models:
            if some := [job for job in found if job.job.wildcards.get("model") == model]:
                lines.append(costs_row(f"  {model}", some))
    return "\n".join([*lines, costs_row("total", jobs)])


def costs_row(name: str, jobs: Iterable[CostedJob]) -> str:
    """Return a line with what jobs need together."""
    total = Total.of(jobs)
    sizes = (total.least, total.device, total.memory, total.disk)
    times = (total.time, total.longest)
    return row((name, f"{total.jobs:,}", *map(duration, times), *map(in_gigabytes, sizes)))


def table_of_downloads(jobs: Sequence[CostedJob], config: Config) -> str | None:
    """Return what is fetched for each model and for the data, and how long that takes; None if nothing ever is."""
    fetches = [job for job in jobs if job.rule in FETCHING]
    by_model = {
        name: [job for job in fetches if job.job.wildcards.get("model") == name]
        for name, model in config.models.items()
        if model.pretrained or model.package
    }
    data = [job for job in fetches if "model" not in job.job.wildcards]
    lines = [download_row(name, of_model, config) for name, of_model in by_model.items()]
    lines += [download_row("data", data, config)] if data else []
    if not lines:
        return None
    head = row(("to fetch", "GB", f"at {NETWORK / 1e6:g} MB/s"), DOWNLOAD_WIDTHS)
    return "\n".join([head, *lines, download_row("total", fetches, config)])


def download_row(name: str, jobs: Sequence[CostedJob], config: Config) -> str:
    """Return a line with what jobs fetch."""
    size = Total.of(jobs).download
    models = [
        config.models[job.job.wildcards["model"]] for job in jobs if job.cost.download and job.rule == FETCHING[0]
    ]
    about = "" if all(model.download_bytes or model.pickle for model in models) else "about "
    gigabytes = f"{about}{size / GIGABYTE:.{1 if size >= GIGABYTE / 10 else 2}f}"
    return row((name, gigabytes if size else "0", fetching(size)), DOWNLOAD_WIDTHS)


def fetching(size: float) -> str:
    """Return how long it takes to fetch so many bytes."""
    seconds = size / NETWORK
    return duration(Time(seconds, seconds) if size else None)


def table_by_target(jobs: Sequence[CostedJob]) -> str:
    """Return, for each figure and table, the jobs that run a model for it, their time, and when a run has made it."""
    lines = [row(("figure or table", "jobs", "time", "there after"), TARGET_WIDTHS)]
    for target in in_order(jobs):
        needed = Total.of(target.with_model)
        after = target.there_after if needed.jobs else None
        lines.append(row((target.name, f"{needed.jobs:,}", duration(needed.time), duration(after)), TARGET_WIDTHS))
    return "\n".join(lines)


def order(jobs: Sequence[CostedJob]) -> str:
    """Return what the table of figures and tables means."""
    gpus = Total.of(jobs).gpus
    where = {0: "with one job at a time", 1: "on one GPU"}.get(gpus, f"one job at a time on up to {gpus} GPUs")
    return (
        "A run makes them in this order, the nearest first. 'time' counts a job wherever it is needed,\n"
        f"'there after' counts it once, {where}, without downloads."
    )


def reduced(jobs: Sequence[CostedJob], seed: int, overrides: Mapping[str, Any]) -> str:
    """Return one sentence with what a run takes with one seed, besides what is replaced already."""
    total = Total.of(jobs)
    option = f"--config {'... ' if overrides else ''}'seeds=[{seed}]'"
    return f"With {option} the run takes {counted(total.jobs, 'job')} and {duration(total.time)}."


def summary(jobs: Sequence[CostedJob], device: str) -> str:
    """Return one sentence with jobs, time, memory, disk and downloads."""
    total, where = Total.of(jobs), "GPU" if device == "cuda" else "CPU"
    place = f"up to {total.gpus} GPUs" if total.gpus > 1 else f"a {where}"
    running = sum(job.cost.time is not None for job in jobs)
    memory = total.least if device == "cuda" else total.memory
    to_fetch = f", {in_gigabytes(total.download)} GB to fetch ({fetching(total.download)} at {NETWORK / 1e6:g} MB/s)"
    return (
        f"{counted(total.jobs, 'job')}, {running:,} of them with a model on {place}: {duration(total.time)}, at most "
        f"{in_gigabytes(memory)} GB of {where} memory, {in_gigabytes(total.disk)} GB of disk"
        f"{to_fetch if total.download else ''} (estimated)."
    )


def largest(jobs: Sequence[CostedJob]) -> str | None:
    """Say in one sentence which job needs most memory of a GPU, and which most main memory; None without jobs."""
    if not jobs:
        return None
    on_gpu = max(jobs, key=lambda job: job.cost.needs.least if job.cost.on_gpu else 0.0)
    in_main = max(jobs, key=lambda job: job.cost.needs.memory)
    main = f"{in_gigabytes(in_main.cost.needs.memory)} GB of main memory"
    if not on_gpu.cost.on_gpu:
        return f"The largest job, {in_main.about}, needs {main}."
    gpu = f"{in_gigabytes(on_gpu.cost.needs.least)} GB of GPU memory"
    if on_gpu is in_main:
        return f"The largest job, {on_gpu.about}, needs {gpu} and {main}."
    return f"The largest jobs are {on_gpu.about}, which needs {gpu}, and {in_main.about}, which needs {main}."


def basis(known: Known) -> str:
    """Return what the times rest on."""
    rates, lengths = known.rates, known.lengths
    counted_at = (
        f"Times count operations: the shortest at {rates.float32:g} TFLOP/s in float32 and {rates.bfloat16:g} in "
        f"bfloat16, the longest at 1/{SPREAD:g} of these rates. A sequence has {lengths.sequence} tokens, an answer "
        f"{lengths.answer}.{shared(known.config)}"
    )
    if not known.on_gpu:
        return f"{counted_at} Jobs run on the CPU (device: cpu) with {counted(known.config.threads, 'thread')} each."
    return (
        f"{counted_at} The default rates are an A100's. With them the paper's two published times for 16,384 facts on "
        "GPT-J lie in the range: MEMIT's 33.75 h near the shortest time, MALMEN's 12.25 h near the longest."
    )


def shared(config: Config) -> str:
    """Return what the times of jobs that several processes share rest on, after a space; "" if there are none."""
    numbers = {name: config.ranks(name) for name in config.models}
    named = ", ".join(f"{name}: {number}" for name, number in numbers.items() if number > 1)
    if not named:
        return ""
    return (
        f" Processes that share a job ({named}) are taken to divide all of its work and never to wait for each other."
    )


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
"""Of the columns of the table by rule, in characters; the first is flush left."""
DOWNLOAD_WIDTHS = (-19, 11, 15)
"""Of the columns of the table of downloads."""
TARGET_WIDTHS = (-19, 5, 15, 16)
"""Of the columns of the table by figure and table."""


def row(cells: Sequence[str], widths: Sequence[int] = WIDTHS) -> str:
    """Return a line of a table."""
    return "".join(
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
    )
