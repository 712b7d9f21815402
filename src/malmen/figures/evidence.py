"""What is known of one model in a run, and what a measurement finds in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from malmen.figures.metrics import origins
from malmen.figures.rounds_values import long_form as in_rounds
from malmen.results.memory import MemoryFile
from malmen.results.sources import Origin

Verdict = Literal["holds", "does not hold", "not testable"]
"""The result of a measurement; "not testable" if the values of m do not reach far enough."""


@dataclass(frozen=True)
class Finding:
    """The measured numbers as text, and whether the claim holds."""

    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Evidence:
    """All measurements of one model in a run.

    Attributes:
        label: the model's name in tables.
        metrics: one row per editor, m, seed and metric (:func:`malmen.figures.metrics.long_form`).
        costs: one row per editor and m (:func:`malmen.figures.compute.compute_costs`).
        memory: the model's memory measurements, if there are any.
        labels: the editors' names in tables, by key.
        variants: the editor of each variant of Table 1.
        cost_sources: files and runs of the costs, by editor.
        memory_source: file of the memory measurements.
        rounds: one row per editor, rounds, seed and measure (:func:`malmen.figures.rounds_values.long_form`).
    """

    label: str
    metrics: pd.DataFrame
    costs: pd.DataFrame
    memory: MemoryFile | None
    labels: Mapping[str, str]
    variants: Mapping[str, str]
    cost_sources: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    memory_source: Path | None = None
    rounds: pd.DataFrame = field(default_factory=lambda: in_rounds([], []))

    def key(self, editor: str) -> str:
        """Return an editor's key, given its key or a variant of Table 1."""
        return self.variants.get(editor, editor)

    def name(self, editor: str) -> str:
        """Return an editor's name in tables."""
        return self.labels[self.key(editor)]

    def scores(self, editor: str, metrics: tuple[str, ...] = ("ES", "GS", "LS")) -> "pd.Series[float]":
        """Return the mean over metrics and seeds by m; NaN where all seeds diverged, empty if never measured."""
        rows = self.metrics[(self.metrics["editor"] == self.key(editor)) & self.metrics["metric"].isin(metrics)]
        return rows.groupby("n_edits")["value"].mean()

    def seconds(self, editor: str) -> "pd.Series[float]":
        """Return the time of training and one edit together, by m."""
        rows = self.costs[self.costs["editor"] == self.key(editor)]
        return rows.set_index("n_edits")["total_seconds"].dropna()

    def both(self, editor: str, baseline: str, metrics: tuple[str, ...] = ("ES", "GS", "LS")) -> pd.DataFrame:
        """Return the scores of two editors at every m at which both were measured: columns ``editor``, ``baseline``."""
        pair = {"editor": self.scores(editor, metrics), "baseline": self.scores(baseline, metrics)}
        return pd.concat(pair, axis=1, join="inner")

    def sources(self, measurement: str, arguments: Mapping[str, Any]) -> tuple[Origin, ...]:
        """Return the runs that a measurement uses."""
        if measurement == "memory_growth":
            return (Origin(self.memory_source),) if self.memory_source else ()
        named = [arguments[name] for name in ("editor", "baseline") if name in arguments]
        editors = [self.key(name) for name in (*named, *arguments.get("others", ()))]
        if measurement == "time_saved":
            return tuple(origin for editor in editors for origin in self.cost_sources.get(editor, ()))
        rows = (table[table["editor"].isin(editors)] for table in (self.metrics, self.rounds))
        return tuple(origin for some in rows for origin in origins(some))


Measurement = Callable[..., Finding | None]


def verdict(holds: bool) -> Verdict:
    """Return the verdict on a claim."""
    return "holds" if holds else "does not hold"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"
