"""Cancellation: the mean residual of an aggregation against the number of edits (paper, section 5.2, Figure 8)."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from malmen.errors import UserError
from malmen.figures.curves import (
    curve_points,
    divergence_notes,
    draw_curve,
    editor_lines,
    new_figure,
    one_model,
    over_seeds,
    set_edits_axis,
)
from malmen.figures.metrics import COLUMNS, long_form, read_metrics, write_csv
from malmen.figures.setting import PAPERS, Setting, notes_of
from malmen.figures.style import COLUMN_WIDTH, EditorStyle, editor_styles, save, theme
from malmen.results.metrics import MetricsFile
from malmen.runtime.files import beside


def draw_residual(
    metrics_paths: Sequence[Path],
    stem: Path,
    title: str,
    n_edits: Collection[int] | None = None,
    setting: Setting = PAPERS,
) -> None:
    """Draw the mean residual of editors of one model and write ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    The y axis is logarithmic. The line is the mean over seeds, the shade one sample standard deviation to both sides,
    cut off where it would reach 0. Diverged runs are left out and named. The CSV holds the drawn values.

    Args:
        metrics_paths: metrics files of one model and dataset, at least one, in any order.
        stem: path of the results without suffix.
        title: the title; empty for none.
        n_edits: the numbers of edits to show; None for all.
        setting: the setting of the run, named under the panel.

    Raises:
        UserError: if a file is malformed or has no residuals, or the files are of several models or datasets.
    """
    files = read_metrics(metrics_paths, n_edits)
    one_model(files, stem)
    values = long_form(files, ["residual"])
    for item in files:
        if any(run.groups and np.isnan(run.mean("residual")) for run in item.runs):
            raise UserError(
                f"The figure {stem} shows residuals, but {item.editor} on {item.model} has none; name editors with a "
                "hyper-network, or measure them again."
            )
    with theme():
        figure = _compose(files, values, title, setting)
    save(figure, stem, curve_points(values))
    write_csv(beside(stem, ".csv"), values[list(COLUMNS)])


def _compose(files: Sequence[MetricsFile], values: pd.DataFrame, title: str, setting: Setting) -> Figure:
    styles = editor_styles(values["editor"])
    notes = [*divergence_notes(files, width=70), *notes_of(setting, files, width=70)]
    figure, (axes,) = new_figure(COLUMN_WIDTH, 1, title, editor_lines(files, styles), notes)
    _draw_panel(axes, values, styles)
    return figure


def _draw_panel(axes: Axes, values: pd.DataFrame, styles: dict[str, EditorStyle]) -> None:
    set_edits_axis(axes, values["n_edits"])
    axes.set_yscale("log")
    axes.set_ylabel("mean residual (MR)")
    curves = {editor: over_seeds(values[values["editor"] == editor]) for editor in styles}
    lowest = min((curve["mean"].min() for curve in curves.values() if curve["mean"].notna().any()), default=1.0)
    highest = max((curve.sum(axis=1).max() for curve in curves.values()), default=1.0)
    # Whole decades, so that orders of magnitude can be counted.
    bottom, top = 10 ** np.floor(np.log10(lowest)), 10 ** np.ceil(np.log10(max(highest, 1.01 * lowest)))
    axes.set_ylim(bottom, top)
    for editor, style in styles.items():
        draw_curve(axes, curves[editor], style, floor=bottom)
    axes.tick_params(which="minor", left=False)
