"""What all figures over the number of edits share: the axis of m, an editor's curve, legend, notes on divergence."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from malmen.figures.metrics import OVER_SEEDS, as_python, of_seeds, origins
from malmen.figures.style import EditorStyle, plain
from malmen.results.metrics import MetricsFile
from malmen.results.sources import Shown

# Heights in inches, from top to bottom, and what a legend leaves free at each side.
_TITLE, _AXIS, _LEGEND_ROW, _NOTE_LINE, _MARGIN, _SIDE = 0.2, 0.38, 0.17, 0.115, 0.04, 0.08


@dataclass(frozen=True)
class Layout:
    """Title, panels, legend and notes from top to bottom, so that nothing covers anything; all lengths in inches.

    Attributes:
        width: of the figure.
        left: of the panels' left border, and of the notes.
        panel: height of the panels.
        above: height above the panels for titles of their own.
        title: above everything; none if empty.
        notes: lines of small text below everything.
    """

    width: float
    left: float
    panel: float
    above: float
    title: str
    notes: Sequence[str]

    def compose(self, handles: Sequence[Artist], draw: Callable[[Figure, float, float], None]) -> Figure:
        """Return the figure; ``draw`` fills the panels between two heights, bottom and top, shares of the figure."""
        top = (_TITLE if self.title else 0) + self.above
        figure = Figure(figsize=(self.width, top + self.panel + _AXIS + _LEGEND_ROW + _MARGIN))
        columns = _legend_columns(figure, handles)
        below = _AXIS + -(-len(handles) // columns) * _LEGEND_ROW + len(self.notes) * _NOTE_LINE + _MARGIN
        height = top + self.panel + below
        figure.set_size_inches(self.width, height)
        draw(figure, below / height, 1 - top / height)
        figure.text(0.5, 1 - 0.05 / height, plain(self.title), ha="center", va="top", fontsize=9.5)
        _add_legend(figure, handles, columns, (below - _AXIS) / height)
        notes_top = (len(self.notes) * _NOTE_LINE + _MARGIN / 2) / height
        small: dict[str, Any] = {"fontsize": 6.5, "color": "#404040", "linespacing": 1.1}
        figure.text(self.left / self.width, notes_top, "\n".join(self.notes), va="top", **small)
        return figure


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
        if width <= figure.get_figwidth() - 2 * _SIDE:
            return columns
    return 1


def single_panel(figure: Figure, left: float, bottom: float, top: float) -> Axes:
    """Return the only panel of a figure, from ``left`` (inches) on, between two heights (shares of the figure)."""
    width = figure.get_figwidth()
    grid = figure.add_gridspec(left=left / width, right=1 - _SIDE / width, bottom=bottom, top=top)
    return figure.add_subplot(grid[0])


def one_model(files: Sequence[MetricsFile], stem: Path) -> None:
    """Check that there is something to draw, of one model on one dataset.

    Raises:
        UserError: if there is not.
    """
    found = sorted({f"{item.model} on {item.dataset}" for item in files})
    if len(found) != 1:
        raise UserError(
            f"The figure {stem} needs measurements of exactly one model on one dataset, and there are "
            f"{len(found)} ({', '.join(found) or 'none'}); pass the metrics files of one."
        )


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean and sample standard deviation over seeds by number of edits: the columns ``mean`` and ``std``."""
    return values.groupby("n_edits")["value"].agg(["mean", "std"])


def curve_points(values: pd.DataFrame) -> list[Shown]:
    """Return what a curve shows, by editor and number of edits, from :func:`malmen.figures.metrics.long_form`."""
    shown = []
    for (editor, n_edits), rows in values.groupby(["editor", "n_edits"]):
        spread = rows.groupby("metric", sort=False)["value"].agg(["mean", "std"])
        values_shown = {str(metric): numbers for metric, numbers in spread.to_dict("index").items()}
        of = {"editor": str(editor), "n_edits": as_python(n_edits)}
        shown.append(Shown.from_origins(of, values_shown, OVER_SEEDS, origins(rows)))
    return shown


def set_edits_axis(axes: Axes, n_edits: pd.Series) -> None:
    """Set m on a log2 axis with ticks at (every second or third) power of two."""
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
    axes.tick_params(which="minor", bottom=False)


def draw_curve(
    axes: Axes, spread: pd.DataFrame, style: EditorStyle, shift: float = 0.0, floor: float = -np.inf
) -> None:
    """Draw one editor's mean and standard deviation.

    Args:
        axes: where to draw; x is the number of edits.
        spread: what :func:`over_seeds` returned.
        style: the editor's look.
        shift: by how many powers of two everything is moved to the right.
        floor: where the deviation ends at the latest, for an axis that does not reach 0.
    """
    x = spread.index.to_numpy(dtype=float) * 2**shift
    mean, std = spread["mean"].to_numpy(), spread["std"].to_numpy()
    below = np.minimum(std, mean - floor)
    axes.fill_between(x, mean - below, mean + std, color=style.colour, alpha=0.18, linewidth=0)
    # A shade needs two neighbouring points; a point alone shows its standard deviation as a bar.
    known = np.pad(np.isfinite(std), 1)
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    bars = np.stack([below, std])[:, alone]
    axes.errorbar(x[alone], mean[alone], bars, fmt="none", ecolor=style.colour, elinewidth=0.8, capsize=1.5)
    # Markers at the border are whole: they may leave the panel.
    axes.plot(x, mean, clip_on=False, zorder=3, **line_settings(style))


def line_settings(style: EditorStyle) -> dict[str, Any]:
    """Return the settings of an editor's line, for matplotlib."""
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.line,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def legend_line(style: EditorStyle, label: str) -> Line2D:
    """Return an editor's entry in a legend."""
    return Line2D([], [], label=label, **line_settings(style))


def divergence_notes(files: Sequence[MetricsFile], width: int) -> list[str]:
    """Return the lines, of at most ``width`` characters, that name the diverged runs; none if there are none."""
    labels = {item.editor: plain(item.editor_label) for item in files}
    runs = [(item.editor, run) for item in files for run in item.runs]
    total = Counter((editor, run.n_edits) for editor, run in runs)
    failed = Counter((editor, run.n_edits) for editor, run in runs if run.status == "diverged")
    named: dict[str, list[str]] = {}
    for editor, m in sorted(failed):
        named.setdefault(editor, []).append(f"{power(m)} ({of_seeds(failed[editor, m], total[editor, m])})")
    text = "; ".join(f"{labels[editor]} at $m$ = {', '.join(places)}" for editor, places in named.items())
    return textwrap.wrap(f"Diverged and left out: {text}.", width=width) if named else []


def power(number: int) -> str:
    """Return ``number``, as a power of two where it is one."""
    exponent = number.bit_length() - 1
    return f"$2^{{{exponent}}}$" if number == 2**exponent else str(number)
