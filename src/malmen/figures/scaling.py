"""Scaling curves: ES, GS and LS against the number of edits (paper, section 5.1, Figures 4 to 7)."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from malmen.errors import UserError
from malmen.figures.metrics import EditorMetrics, long_form, of_seeds, read_metrics, write_csv
from malmen.figures.style import GREY, TEXT_WIDTH, EditorStyle, editor_styles, plain, save, theme
from malmen.files import beside

PANELS = {"ES": "Edit success (ES)", "GS": "Generalisation success (GS)", "LS": "Locality success (LS)"}

# Heights in inches, from top to bottom.
_TITLE, _PANEL_TITLE, _PANEL, _AXIS, _LEGEND_ROW, _NOTE_LINE, _MARGIN = 0.2, 0.22, 1.45, 0.38, 0.17, 0.115, 0.04
# Widths in inches: left of the panels, right of them, and between two.
_LEFT, _RIGHT, _GAP = 0.42, 0.08, 0.16


def draw_scaling(metrics_paths: Sequence[Path], stem: Path, title: str) -> None:
    """Draw the scaling curves of one model and write ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    Three panels share the y axis (percent): the line is the mean over seeds, the shade one sample standard deviation
    to both sides, the grey dotted line the value before the edit, averaged over editors and seeds. A number of
    edits at which all seeds of an editor diverged is a gap in its line; every diverged run is named under the panels.
    Where some seeds diverged, mean and deviation are those of the others. If there is but one number of edits, the
    editors stand side by side, with their deviations as bars. The CSV holds what is drawn, in shares, as
    :func:`malmen.figures.metrics.long_form` describes.

    Args:
        metrics_paths: metrics files of one model and dataset, at least one, in any order.
        stem: path of the results without the ending.
        title: printed above the panels; no title if empty.

    Raises:
        UserError: if a file is malformed, or there is no measurement, or they are of several models or datasets.
    """
    files = read_metrics(metrics_paths)
    values = long_form(files)
    if values[["model", "dataset"]].drop_duplicates().shape[0] != 1:
        found = sorted({f"{item.model} on {item.dataset}" for item in files if item.runs})
        raise UserError(
            f"The figure {stem} needs measurements of exactly one model on one dataset, and there are "
            f"{len(found)} ({', '.join(found) or 'none'}); pass the metrics files of one."
        )
    with theme():
        figure = _compose(files, values, title)
    save(figure, stem)
    write_csv(beside(stem, ".csv"), values)


def _compose(files: Sequence[EditorMetrics], values: pd.DataFrame, title: str) -> Figure:
    """Lay out panels, legend and notes from top to bottom, in inches, so that nothing covers anything."""
    styles = editor_styles(values["editor"])
    labels = {item.editor: plain(item.editor_label) for item in files}
    handles: list[Artist] = [_legend_line(styles[editor], labels[editor]) for editor in styles]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="before editing"))
    notes = _notes(files, labels)

    top = (_TITLE if title else 0) + _PANEL_TITLE
    figure = Figure(figsize=(TEXT_WIDTH, top + _PANEL + _AXIS + _LEGEND_ROW + _MARGIN))
    columns = _legend_columns(figure, handles)
    rows = -(-len(handles) // columns)
    height = top + _PANEL + _AXIS + rows * _LEGEND_ROW + len(notes) * _NOTE_LINE + _MARGIN
    figure.set_size_inches(TEXT_WIDTH, height)

    _draw_panels(figure, values, styles, bottom=(height - top - _PANEL) / height, top=1 - top / height)
    figure.text(0.5, 1 - 0.05 / height, plain(title), ha="center", va="top", fontsize=9.5)
    legend_top = (height - top - _PANEL - _AXIS) / height
    _add_legend(figure, handles, columns, legend_top)
    notes_top = (len(notes) * _NOTE_LINE + _MARGIN / 2) / height
    figure.text(
        _LEFT / TEXT_WIDTH, notes_top, "\n".join(notes), va="top", fontsize=6.5, color="#404040", linespacing=1.1
    )
    return figure


def _legend_line(style: EditorStyle, label: str) -> Line2D:
    return Line2D([], [], label=label, **_line_settings(style))


def _line_settings(style: EditorStyle) -> dict[str, Any]:
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.line,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def _add_legend(figure: Figure, handles: Sequence[Artist], columns: int, top: float) -> Legend:
    return figure.legend(
        handles=list(handles),
        ncols=columns,
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=3,
        columnspacing=1.4,
        labelspacing=0.35,
    )


def _legend_columns(figure: Figure, handles: Sequence[Artist]) -> int:
    """Return the most columns with which the legend is no wider than the figure."""
    for columns in range(len(handles), 1, -1):
        legend = _add_legend(figure, handles, columns, top=1)
        width = legend.get_window_extent().width / figure.dpi
        legend.remove()
        if width <= TEXT_WIDTH - 2 * _RIGHT:
            return columns
    return 1


def _draw_panels(
    figure: Figure, values: pd.DataFrame, styles: dict[str, EditorStyle], bottom: float, top: float
) -> None:
    """Draw one panel per metric between the heights ``bottom`` and ``top`` (shares of the figure)."""
    panel = (TEXT_WIDTH - _LEFT - _RIGHT - 2 * _GAP) / len(PANELS)
    grid = figure.add_gridspec(
        ncols=len(PANELS),
        left=_LEFT / TEXT_WIDTH,
        right=1 - _RIGHT / TEXT_WIDTH,
        wspace=_GAP / panel,
        bottom=bottom,
        top=top,
    )
    for axes, (metric, name) in zip(grid.subplots(sharey=True, squeeze=False)[0], PANELS.items(), strict=True):
        _set_axes(axes, values["n_edits"])
        _draw_before(axes, values[values["metric"] == f"pre_{metric}"])
        chosen = values[values["metric"] == metric]
        for index, (editor, style) in enumerate(styles.items()):
            shift = (index - (len(styles) - 1) / 2) * 0.12 if values["n_edits"].nunique() == 1 else 0.0
            _draw_editor(axes, chosen[chosen["editor"] == editor], style, shift)
        axes.set_title(name)
        axes.label_outer()
        axes.tick_params(which="minor", bottom=False)
    figure.axes[0].set_ylabel("success (%)")


def _set_axes(axes: Axes, n_edits: pd.Series) -> None:
    """Set m on a log2 axis with ticks at (every second or third) power of two, and 0 to 100 % on the y axis."""
    low, high = np.log2(n_edits.min()), np.log2(n_edits.max())
    # Within one octave the margin is large enough for at least one power of two.
    margin = 0.06 * (high - low) if high - low >= 1 else 0.8
    exponents = np.arange(np.ceil(low - margin), np.floor(high + margin) + 1)
    # Count the step back from the largest power, the one that matters most.
    exponents = np.sort(exponents[:: -(1 + (len(exponents) - 1) // 8)])
    axes.set_xscale("log", base=2)
    axes.set_xlim(2 ** (low - margin), 2 ** (high + margin))
    axes.set_xticks(2.0**exponents, [f"$2^{{{int(exponent)}}}$" for exponent in exponents])
    axes.set_xlabel(r"number of edits $m$")
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))


def _draw_before(axes: Axes, values: pd.DataFrame) -> None:
    """Draw the value before the edit from border to border; it moves with m only as the groups' sizes do."""
    mean = 100 * values.groupby("n_edits")["value"].mean().dropna()
    if len(mean):
        x = np.geomspace(*axes.get_xlim(), num=257)
        y = np.interp(np.log2(x), np.log2(mean.index.to_numpy(dtype=float)), mean.to_numpy())
        axes.plot(x, y, color=GREY, linestyle=":", zorder=1.5)


def _draw_editor(axes: Axes, values: pd.DataFrame, style: EditorStyle, shift: float) -> None:
    """Draw one editor's mean and standard deviation, moved to the right by ``shift`` (in powers of two)."""
    over_seeds = 100 * values.groupby("n_edits")["value"].agg(["mean", "std"])
    x = over_seeds.index.to_numpy(dtype=float) * 2**shift
    mean, std = over_seeds["mean"].to_numpy(), over_seeds["std"].to_numpy()
    axes.fill_between(x, mean - std, mean + std, color=style.colour, alpha=0.18, linewidth=0)
    # A shade needs two neighbouring points; a point alone shows its standard deviation as a bar.
    spread = np.pad(np.isfinite(std), 1)
    alone = spread[1:-1] & ~spread[:-2] & ~spread[2:]
    axes.errorbar(x[alone], mean[alone], std[alone], fmt="none", ecolor=style.colour, elinewidth=0.8, capsize=1.5)
    # Markers at 0 and 100 % are whole: they may leave the panel.
    axes.plot(x, mean, clip_on=False, zorder=3, **_line_settings(style))


def _notes(files: Sequence[EditorMetrics], labels: dict[str, str]) -> list[str]:
    """Return the lines that name the diverged runs, none if there are none."""
    runs = [(item.editor, run) for item in files for run in item.runs]
    total = Counter((editor, run.n_edits) for editor, run in runs)
    failed = Counter((editor, run.n_edits) for editor, run in runs if run.status == "diverged")
    named: dict[str, list[str]] = {}
    for editor, m in sorted(failed):
        named.setdefault(editor, []).append(f"{_power(m)} ({of_seeds(failed[editor, m], total[editor, m])})")
    text = "; ".join(f"{labels[editor]} at $m$ = {', '.join(places)}" for editor, places in named.items())
    return textwrap.wrap(f"Diverged and left out: {text}.", width=150) if named else []


def _power(number: int) -> str:
    """Return ``number``, as a power of two where it is one."""
    exponent = number.bit_length() - 1
    return f"$2^{{{exponent}}}$" if number == 2**exponent else str(number)
