"""Success and drawdown by sequence beside the published numbers of MEND (appendix A.7, Table 3)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd

from malmen.errors import UserError
from malmen.figures.metrics import OVER_SEEDS, as_python, of_seeds, read_metrics, reasons_of, write_csv
from malmen.figures.published import read_published
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import DASH, Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.metrics import MetricsFile, RunMetrics
from malmen.results.sources import AS_PUBLISHED, Origin, Shown
from malmen.runtime.files import beside

HEADS = {"edit_success": "Edit success ↑", "drawdown": "Accuracy drawdown ↓"}
DECIMALS = {"edit_success": 2, "drawdown": 3}
"""Numbers of decimals, as in the paper."""
COLUMNS = ("column", "n_edits", "metric", "value", "source")
"""The columns of the file of published numbers."""
NOT_RUN = "not run"
"""Text of our cells at a published number of edits that we did not run."""
PUBLISHED = {"original": "Original", "reimplementation": "Paper"}
"""Heads of the published columns: MEND's authors, and the paper's re-implementation of MEND."""


def write_comparison(
    metrics: Sequence[Path],
    editors: Sequence[str],
    n_edits: Sequence[int],
    published: Path | None,
    data: str,
    stem: Path,
    setting: Setting = PAPERS,
) -> None:
    """Write the table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv`` (long form, unrounded).

    Each number of edits has a line: mean (sample standard deviation over seeds) of our editors, and the published
    values, all as shares.

    Args:
        metrics: metrics files of one model, of all editors and seeds.
        editors: keys of the editors, in the order of their columns.
        n_edits: the numbers of edits m; other runs in the files are ignored.
        published: None, or a CSV with the columns :data:`COLUMNS`.
        data: the printed name of the data set.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if a file is malformed, or the files do not hold exactly one model and these editors.
    """
    files = read_metrics(metrics)
    labels = {item.editor: item.editor_label for item in files}
    models = sorted({item.model_label for item in files})
    if len(models) != 1 or set(labels) != set(editors):
        found = f"{', '.join(models) or 'no model'} and {', '.join(sorted(labels)) or 'no editor'}"
        raise UserError(
            f"The comparison needs one model and {', '.join(editors)}, not {found}; pass other metrics files."
        )
    paper = read_published(published, COLUMNS).rename(columns={"value": "mean"})
    values = pd.concat([_ours(files, editors, n_edits), paper], ignore_index=True)
    columns = {editor: labels[editor] for editor in editors}
    edited = f"{models[0]} on {data}"
    grid = _grid(values, edited, columns | (PUBLISHED if published else {}), _notes(files, columns, n_edits))
    grid = replace(grid, caption=setting.after(grid.caption))
    write_grid(grid, stem, list(_shown(files, values, published)))
    write_csv(beside(stem, ".csv"), values)


def _runs(files: Sequence[MetricsFile], editor: str, n_edits: int) -> list[RunMetrics]:
    return [run for item in files if item.editor == editor for run in item.runs if run.n_edits == n_edits]


def _ours(files: Sequence[MetricsFile], editors: Sequence[str], n_edits: Sequence[int]) -> pd.DataFrame:
    """Return one row per editor, m and metric; NaN where all seeds diverged."""
    rows = []
    for editor, m in product(editors, sorted(n_edits)):
        for metric in HEADS:
            means = pd.Series([run.mean(metric) for run in _runs(files, editor, m)], dtype=float)
            number = {"mean": means.mean(), "std": means.std(ddof=1), "n_seeds": means.count()}
            rows.append({"column": editor, "n_edits": m, "metric": metric, **number, "source": "this run"})
    return pd.DataFrame(rows)


def _shown(files: Sequence[MetricsFile], values: pd.DataFrame, published: Path | None) -> Iterator[Shown]:
    """Yield the sources of our numbers and of the published ones."""
    for (column, m, source), rows in values.groupby(["column", "n_edits", "source"], sort=False):
        ours = source == "this run"
        runs = _runs(files, str(column), as_python(m)) if ours else []
        origins = [Origin(run.file, run.n_edits, run.seed) for run in runs]
        if published and not runs:
            origins = [Origin(published)]
        numbers = {row["metric"]: {"mean": row["mean"], "std": row["std"]} for row in rows.to_dict("records")}
        of = {"column": str(column), "model": files[0].model, "n_edits": as_python(m), "source": str(source)}
        yield Shown.from_origins(of, numbers, OVER_SEEDS if ours else AS_PUBLISHED, origins)


def _notes(files: Sequence[MetricsFile], labels: Mapping[str, str], n_edits: Sequence[int]) -> tuple[str, ...]:
    """Return the footnotes about runs that diverged."""
    notes = []
    for editor, m in product(labels, sorted(n_edits)):
        runs = _runs(files, editor, m)
        diverged = [run for run in runs if run.status == "diverged"]
        if diverged:
            what = f"{labels[editor]}, {m} edits: {of_seeds(len(diverged), len(runs))} diverged"
            notes.append(f"{what}: {reasons_of(diverged)}")
    return tuple(notes)


def _grid(values: pd.DataFrame, edited: str, columns: Mapping[str, str], notes: tuple[str, ...]) -> Grid:
    numbers = values.set_index(["column", "n_edits", "metric"])
    sources = values[values["column"].isin(list(PUBLISHED))].drop_duplicates("column").set_index("column")["source"]
    said = "; ".join(f"“{head}”: {sources[column]}" for column, head in PUBLISHED.items() if column in sources.index)
    return Grid(
        caption=f"Sequence-wise success and drawdown of edits of {edited}: mean (standard deviation over seeds), "
        "as shares.",
        corner="Edits",
        groups=tuple(ColumnGroup((head,), tuple(columns.values())) for head in HEADS.values()),
        blocks=tuple((_line(m, numbers, list(columns)),) for m in sorted(set(values["n_edits"]))),
        notes=notes,
        remark=f"{said}.",
    )


def _line(n_edits: int, numbers: pd.DataFrame, columns: Sequence[str]) -> Line:
    cells = [Cell(str(n_edits))]
    for metric in HEADS:
        for column in columns:
            key = (column, n_edits, metric)
            published = column in PUBLISHED
            absent = "" if published else NOT_RUN
            text = _number(metric, *numbers.loc[key, ["mean", "std"]]) if key in numbers.index else absent
            cells.append(Cell(text, italic=published))
    return tuple(cells)


def _number(metric: str, mean: float, std: float) -> str:
    """Return ``mean (std)``, the mean alone if there is no deviation, a dash if there is no mean."""
    if math.isnan(mean):
        return DASH
    decimals = DECIMALS[metric]
    return f"{mean:.{decimals}f}" if math.isnan(std) else f"{mean:.{decimals}f} ({std:.{decimals}f})"
