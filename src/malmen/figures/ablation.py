"""Ablation tables: variants of MALMEN at one number of edits beside the paper's numbers (section 5.2, Tables 1, 2)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from malmen.errors import UserError
from malmen.figures.costs import CostFiles
from malmen.figures.metrics import OVER_SEEDS, of_seeds, read_metrics, reasons_of, write_csv
from malmen.figures.published import read_published
from malmen.figures.setting import PAPERS, TAUGHT, Setting
from malmen.figures.tables import DASH, Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.metrics import MetricsFile, RunMetrics
from malmen.results.run import Run
from malmen.results.sources import AS_PUBLISHED, Origin, Shown
from malmen.runtime.files import beside

SUCCESSES = {metric: f"{metric} ↑" for metric in ("ES", "GS", "LS")}
"""Heads of the columns in every ablation table, in percent."""
TIMES = {"training_hours": "Training ↓", "editing_hours": "Editing ↓", "hours": "Time ↓"}
"""Heads of the columns with times: of training, of editing one group, and of both."""

HOURS = "hours; mean and sample standard deviation over seeds of the times in the field 'seconds'"
"""How times are computed."""

PUBLISHED = ("variant", "model", "metric", "n_edits", "mean", "std", "source")
"""The columns of a file of published numbers."""

SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 0.001}
"""Units of time, the largest first."""


@dataclass(frozen=True)
class AblationRow:
    """One variant.

    Attributes:
        key: its key in the paper's numbers.
        label: its printed name.
        metrics: its metrics files, of all models and seeds.
        costs: its files of costs, by model; empty to show no times.
    """

    key: str
    label: str
    metrics: tuple[Path, ...]
    costs: Mapping[str, CostFiles] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Variant:
    """The measurements of one variant on one model: a run per seed (none if it was not run), and times if shown."""

    row: AblationRow
    model: MetricsFile
    runs: tuple[RunMetrics, ...]
    hours: Mapping[str, Mapping[Run, float]]

    def values(self, measure: str) -> pd.Series:
        """Return a measure of every run, NaN where it diverged: a success in percent, or a time in hours."""
        if measure in self.hours:
            times = self.hours[measure]
            return pd.Series([times.get(Run(run.n_edits, run.seed), math.nan) for run in self.runs], dtype=float)
        return pd.Series([100 * run.mean(measure) for run in self.runs], dtype=float)

    @property
    def diverged(self) -> int:
        """The number of seeds that diverged."""
        return sum(run.status == "diverged" for run in self.runs)

    @property
    def status(self) -> str:
        """``ok``, ``diverged`` (all seeds), ``partly diverged`` or ``not run``."""
        if not self.runs:
            return "not run"
        if not self.diverged:
            return "ok"
        return "diverged" if self.diverged == len(self.runs) else "partly diverged"

    @property
    def note(self) -> str:
        """The footnote about the seeds that diverged, with reasons; empty if none did."""
        if not self.diverged:
            return ""
        rest = "" if self.status == "diverged" else " (the numbers are those of the others)"
        return f"{of_seeds(self.diverged, len(self.runs))} diverged{rest}: {reasons_of(self.runs)}"


def write_ablation(
    rows: Sequence[AblationRow],
    n_edits: int,
    published: Path | None,
    data: Mapping[str, str],
    stem: Path,
    setting: Setting = PAPERS,
) -> None:
    """Write an ablation table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv`` (long form).

    Every variant has a line with our numbers and one with the paper's: mean (sample standard deviation over seeds) of
    successes in percent and, if the rows have costs, of times. The best printed mean of each column is bold, among ours
    and among the paper's; means with diverged seeds do not count. The CSV holds the unrounded numbers (times in hours);
    ``n_seeds`` is the number of seeds of a mean, ``status`` is :attr:`Variant.status`.

    Args:
        rows: the variants, in printing order.
        n_edits: the number of edits m; other runs in the files are ignored.
        published: the paper's numbers in percent and hours, a CSV with the columns :data:`PUBLISHED`; an empty mean
            prints as a dash. None to show none.
        data: the printed names of data sets.
        stem: path of the results without suffix.
        setting: the setting of the run; the paper's LS has a footnote on the models that were ``taught``.

    Raises:
        UserError: if a file is malformed, no run has ``n_edits`` edits, or one model was edited on two datasets.
    """
    variants = _collect(rows, n_edits)
    paper = read_published(published, PUBLISHED).set_index(["variant", "model", "metric"])
    measures = SUCCESSES | (TIMES if any(row.costs for row in rows) else {})
    values = _long_form(variants, list(measures), n_edits, paper)
    ours = values["mean"].where(values["status"] == "ok")
    marked = values.assign(best=_is_best(values, ours), paper_best=_is_best(values, values["paper_mean"]))
    grid = _grid(variants, list(measures.values()), marked, n_edits, paper, data, setting)
    of_paper = _shown_of_paper(values, paper, published) if published else ()
    write_grid(grid, stem, [*_shown(variants, values), *of_paper])
    write_csv(beside(stem, ".csv"), values.assign(data=values["dataset"].map(dict(data))))


def _collect(rows: Sequence[AblationRow], n_edits: int) -> list[Variant]:
    """Return all pairs of a row and a model, row by row, models sorted by key."""
    files = {row.key: [item for item in read_metrics(row.metrics) if _runs([item], n_edits)] for row in rows}
    models: dict[str, MetricsFile] = {}
    for item in (item for items in files.values() for item in items):
        if models.setdefault(item.model, item).dataset != item.dataset:
            raise UserError(
                f"The ablation has measurements of {item.model} on both {models[item.model].dataset} and "
                f"{item.dataset}; pass the metrics files of one dataset per model."
            )
    if not models:
        raise UserError(f"No metrics file of the ablation has a run of m = {n_edits}; choose an m that was run.")
    return [
        Variant(
            row,
            models[key],
            _runs([item for item in files[row.key] if item.model == key], n_edits),
            row.costs[key].by_run() if key in row.costs else {},
        )
        for row in rows
        for key in sorted(models)
    ]


def _runs(files: Sequence[MetricsFile], n_edits: int) -> tuple[RunMetrics, ...]:
    return tuple(run for item in files for run in item.runs if run.n_edits == n_edits)


def _shown(variants: Sequence[Variant], values: pd.DataFrame) -> Iterator[Shown]:
    """Yield the sources of our numbers: metrics for successes, costs for times."""
    by_variant = values.set_index(["variant", "model"])
    for variant in variants:
        row, model = variant.row, variant.model
        numbers = by_variant.loc[[(row.key, model.model)]].set_index("metric")[["mean", "std"]].to_dict("index")
        n_edits = int(by_variant["n_edits"].iloc[0])
        of: dict[str, str | int] = {"n_edits": n_edits, "variant": row.key, "label": row.label, "model": model.model}
        runs = tuple(Origin(run.file, run.n_edits, run.seed) for run in variant.runs)
        measured = {metric: numbers[metric] for metric in SUCCESSES}
        yield Shown.from_origins(of, measured, f"percent; {OVER_SEEDS}", runs)
        if model.model in row.costs:
            times = {metric: numbers[metric] for metric in TIMES}
            yield Shown.from_origins(of, times, HOURS, row.costs[model.model].origins(n_edits))


def _shown_of_paper(values: pd.DataFrame, paper: pd.DataFrame, published: Path) -> Iterator[Shown]:
    """Yield the sources of the paper's numbers."""
    for value in values.to_dict("records"):
        key = (value["variant"], value["model"], value["metric"])
        if key in paper.index:
            number = {"mean": value["paper_mean"], "std": value["paper_std"]}
            of = {"variant": value["variant"], "model": value["model"], "source": "paper"}
            yield Shown.from_origins(of, {value["metric"]: number}, AS_PUBLISHED, (Origin(published),))


def _long_form(variants: Sequence[Variant], measures: Sequence[str], n_edits: int, paper: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant, model and metric, NaN where there is no number."""
    records = []
    for variant in variants:
        for metric in measures:
            values = variant.values(metric)
            key = (variant.row.key, variant.model.model, metric)
            records.append(
                {
                    "variant": variant.row.key,
                    "model": variant.model.model,
                    "dataset": variant.model.dataset,
                    "n_edits": n_edits,
                    "metric": metric,
                    "mean": values.mean(),
                    "std": values.std(ddof=1),
                    "n_seeds": values.count(),
                    "status": variant.status,
                    "paper_mean": paper["mean"].get(key, math.nan),
                    "paper_std": paper["std"].get(key, math.nan),
                }
            )
    return pd.DataFrame(records)


def _grid(
    variants: Sequence[Variant],
    heads: Sequence[str],
    values: pd.DataFrame,
    n_edits: int,
    paper: pd.DataFrame,
    data: Mapping[str, str],
    setting: Setting,
) -> Grid:
    models = [variant.model for variant in variants if variant.row == variants[0].row]
    blocks = [(f"{data[model.dataset]}, m = {n_edits}", model.model_label) for model in models]
    rows = list(dict.fromkeys(variant.row for variant in variants))
    notes = list(dict.fromkeys(variant.note for variant in variants if variant.note))
    numbers = {(v.row.key, v.model.model): notes.index(v.note) + 1 for v in variants if v.note}
    with_ls = set(paper[paper.index.get_level_values("metric") == "LS"].index.get_level_values("model"))
    apart = [model.model for model in models if model.model in with_ls.intersection(setting.taught)]
    shown = paper[paper.index.isin(list(zip(values["variant"], values["model"], values["metric"], strict=True)))]
    sources = dict.fromkeys(f"{source}, m = {m}" for source, m in zip(shown["source"], shown["n_edits"], strict=True))
    apart_from_paper = ", separately for ours and the paper's" if sources else ""
    published = f" “Paper”: {'; '.join(sources)}." if sources else ""
    times = (
        f" Times: to train the editor, to edit one group, and both; {setting.clock}." if TIMES["hours"] in heads else ""
    )
    return Grid(
        caption=setting.after(f"Ablation study with {n_edits} edits: mean (standard deviation over seeds) in percent."),
        corner="Variant",
        groups=tuple(ColumnGroup(block, tuple(heads)) for block in blocks),
        blocks=tuple(_block(row, values, paper, numbers, dict.fromkeys(apart, len(notes) + 1)) for row in rows),
        notes=(*notes, *([TAUGHT] if apart else ())),
        remark=f"The best of each column is bold{apart_from_paper}.{times}{published}",
    )


def _is_best(values: pd.DataFrame, means: pd.Series) -> list[bool]:
    """Return for each printed mean whether it is the best of its model and metric (highest success, lowest time)."""
    sign = values["metric"].map(lambda metric: -1 if metric in TIMES else 1)
    best = sign * (sign * means).groupby([values["model"], values["metric"]]).transform("max")
    printed = [map(_number, values["metric"], numbers) for numbers in (means, best)]
    return [one == other != DASH for one, other in zip(*printed, strict=True)]


def _block(
    row: AblationRow,
    values: pd.DataFrame,
    paper: pd.DataFrame,
    notes: Mapping[tuple[str, str], int],
    apart: Mapping[str, int],
) -> tuple[Line, ...]:
    """Return the line of ours and, if the paper has this variant, the line of the paper's numbers.

    ``notes`` are the numbers of our footnotes by variant and model, ``apart`` those of the paper's LS by model.
    """
    ours, papers = [Cell(row.label)], [Cell("paper", italic=True)]
    for value in values[values["variant"] == row.key].to_dict("records"):
        text = "" if value["status"] == "not run" else _number(value["metric"], value["mean"], value["std"])
        ours.append(Cell(text, bold=value["best"], note=notes.get((row.key, value["model"]))))
        known = (row.key, value["model"], value["metric"]) in paper.index
        text = _number(value["metric"], value["paper_mean"], value["paper_std"]) if known else ""
        note = apart.get(value["model"]) if text and value["metric"] == "LS" else None
        papers.append(Cell(text, bold=value["paper_best"], italic=True, note=note))
    return (tuple(ours), tuple(papers)) if any(cell.text for cell in papers[1:]) else (tuple(ours),)


def _number(metric: str, mean: float, std: float = math.nan) -> str:
    """Return ``mean (std)`` with one decimal, the mean alone if there is no deviation, a dash if there is no mean.

    Times print in the largest unit in which they are at least 1.
    """
    if pd.isna(mean):
        return DASH
    unit = next((name for name, size in SECONDS.items() if 3600 * mean >= size), "ms") if metric in TIMES else ""
    factor = 3600 / SECONDS[unit] if unit else 1
    deviation = "" if pd.isna(std) else f" ({factor * std:.1f})"
    return f"{factor * mean:.1f}{deviation} {unit}".rstrip()
