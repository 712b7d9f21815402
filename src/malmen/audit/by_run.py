"""What each run contributes to a number, read from the files of results again."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from malmen.errors import UserError
from malmen.results.costs import CostsFile
from malmen.results.metrics import GroupMetrics, MetricsFile
from malmen.results.rounds import RoundsCostsFile, RoundsFile
from malmen.results.sources import Shown

ByRun = dict[tuple[str, int, int], dict[str, float | str]]
"""Values by file, m and seed: of each metric, or what else the file says of the run."""


def by_run(number: Shown, root: Path) -> ByRun:
    """Return the values of the runs behind a number, in its unit; costs in seconds and bytes.

    A file that is missing, changed beyond reading, or of another kind contributes nothing.
    """
    if "rounds" in number.of:
        return _in_rounds(number, root)
    found: ByRun = {}
    unit = 100.0 if number.how.startswith("percent") else 1.0
    metrics = [metric for metric in number.values if metric in GroupMetrics.model_fields]
    for file, runs in number.runs.items():
        wanted = {tuple(run) for run in runs}
        try:
            if file.endswith(".cost.json"):
                for cost in CostsFile.read(root / file).root:
                    if (cost.run.n_edits, cost.run.seed) in wanted:
                        values = {"seconds": cost.seconds, "peak_bytes": cost.peak_bytes}
                        found[file, cost.run.n_edits, cost.run.seed] = dict(values)
            elif metrics:
                for run in MetricsFile.read(root / file).runs:
                    if (run.n_edits, run.seed) in wanted:
                        known = {metric: unit * run.mean(metric) for metric in metrics}
                        diverged: dict[str, float | str] = {"status": run.status}
                        found[file, run.n_edits, run.seed] = dict(known) if run.groups else diverged
        except UserError:
            continue
    return found


def _in_rounds(number: Shown, root: Path) -> ByRun:
    """Return the same of runs in rounds, whose rounds the number names; shares as the files hold them."""
    found: ByRun = {}
    rounds, after = number.of["rounds"], number.of.get("after")
    for file, runs in number.runs.items():
        wanted = {tuple(run) for run in runs}
        try:
            if number.of.get("what") == "training":
                for trained in CostsFile.read(root / file).root:
                    if (trained.run.n_edits, trained.run.seed) in wanted:
                        found[file, trained.run.n_edits, trained.run.seed] = {"train_seconds": trained.seconds}
            elif number.of.get("what") == "editing":
                for cost in RoundsCostsFile.read(root / file).root:
                    if f"{cost.n_rounds}x{cost.n_edits}" == rounds and (cost.n_edits, cost.seed) in wanted:
                        priced = {"seconds_per_edit": cost.seconds_per_edit, "peak_bytes": float(cost.peak_bytes)}
                        found[file, cost.n_edits, cost.seed] = dict(priced)
            else:
                for run in RoundsFile.read(root / file).runs:
                    if run.rounds == rounds and (run.n_edits, run.seed) in wanted:
                        known = {name: run.value(name, int(after) if after else None) for name in number.values}
                        found[file, run.n_edits, run.seed] = {
                            name: value for name, value in known.items() if not math.isnan(value)
                        } or {"status": run.status}
        except UserError:
            continue
    return found


def disagreements(number: Shown, measured: ByRun) -> Iterator[str]:
    """Yield how a number differs from the mean and sample standard deviation of its runs' values, if all are there."""
    if len(measured) < sum(map(len, number.runs.values())):
        return
    for metric, shown in number.values.items():
        found = [(seed, value) for (_, _, seed), run in measured.items() if isinstance(value := run.get(metric), float)]
        if not found or not isinstance(shown, Mapping):
            continue
        values = [value for _, value in found]
        if number.how.startswith("mean over editors with each seed"):
            values = [fmean(value for of, value in found if of == seed) for seed in dict(found)]
        computed = {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}
        for name, value in computed.items():
            if name in shown and not agree(shown[name], value):
                yield f"it says that {metric} has the {name} {shown[name]}; its runs have {value}"


def agree(one: Any, other: Any) -> bool:
    """Return whether two numbers are equal but for rounding, or both absent."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
