"""Scaling curves: ES, GS and LS against the number of edits (paper, section 5.1, Figures 4 to 7)."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from malmen.figures.curves import (
    curve_points,
    divergence_notes,
    draw_before,
    draw_curve,
    editor_lines,
    new_figure,
    one_model,
    over_seeds,
    set_edits_axis,
)
from malmen.figures.metrics import COLUMNS, long_form, read_metrics, write_csv
from malmen.figures.setting import PAPERS, Setting, notes_of
from malmen.figures.style import GREY, TEXT_WIDTH, EditorStyle, editor_styles, save, theme
from malmen.results.metrics import MetricsFile
from malmen.runtime.files import beside

PANELS = {"ES": "Edit success (ES)", "GS": "Generalisation success (GS)", "LS": "Locality success (LS)"}


def draw_scaling(
    metrics_paths: Sequence[Path],
    stem: Path,
    title: str,
    n_edits: Collection[int] | None = None,
    setting: Setting = PAPERS,
) -> None:
    """Draw the scaling curves of one model and write ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    Three panels share the y axis (percent). The line is the mean over seeds, the shade one sample standard deviation to
    both sides, the grey dotted line the value before the edit, averaged over editors and seeds. Diverged runs do not
    count and are named under the panels; if all seeds diverged, the line has a gap. With a single number of edits, the
    editors are side by side, with their deviations as bars. The CSV holds the drawn values in shares, as
    :func:`malmen.figures.metrics.long_form` describes; ``stem.sources.json`` names their runs.

    Args:
        metrics_paths: metrics files of one model and dataset, at least one, in any order.
        stem: path of the results without suffix.
        title: the title; empty for none.
        n_edits: the numbers of edits to show; None for all.
        setting: the setting of the run, named under the panels.

    Raises:
        UserError: if a file is malformed, there are no measurements, or they are of several models or datasets.
    """
    files = read_metrics(metrics_paths, n_edits)
    values = long_form(files)
    one_model(files, stem)
    with theme():
        figure = _compose(files, values, title, setting)
    save(figure, stem, curve_points(values))
    write_csv(beside(stem, ".csv"), values[list(COLUMNS)])


def _compose(files: Sequence[MetricsFile], values: pd.DataFrame, title: str, setting: Setting) -> Figure:
    styles = editor_styles(values["editor"])
    handles = [*editor_lines(files, styles), Line2D([], [], color=GREY, linestyle=":", label="before editing")]
    notes = [*divergence_notes(files, width=150), *notes_of(setting, files, width=150)]
    figure, panels = new_figure(TEXT_WIDTH, len(PANELS), title, handles, notes)
    for axes, metric in zip(panels, PANELS, strict=True):
        _draw_panel(axes, values, metric, styles)
    panels[0].set_ylabel("success (%)")
    return figure


def _draw_panel(axes: Axes, values: pd.DataFrame, metric: str, styles: dict[str, EditorStyle]) -> None:
    axes.set_title(PANELS[metric])
    set_edits_axis(axes, values["n_edits"])
    # Margins keep markers at 0 and 100 % inside the frame.
    axes.set_ylim(-4, 104)
    axes.set_yticks(range(0, 101, 20))
    draw_before(axes, 100 * values[values["metric"] == f"pre_{metric}"].groupby("n_edits")["value"].mean())
    chosen = values[values["metric"] == metric]
    for index, (editor, style) in enumerate(styles.items()):
        shift = (index - (len(styles) - 1) / 2) * 0.12 if values["n_edits"].nunique() == 1 else 0.0
        draw_curve(axes, 100 * over_seeds(chosen[chosen["editor"] == editor]), style, shift)
