"""Common parts of figures over the number of edits: the axis of m, curves, legend, notes on divergence."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from malmen.figures.metrics import OVER_SEEDS, as_python, check_one_model, of_seeds, origins
from malmen.figures.style import GREY, EditorStyle, plain
from malmen.results.metrics import MetricsFile
from malmen.results.sources import Shown

PANEL_HEIGHT = 2.05
"""Height in inches of panels with their axes and titles."""

MANY = 8
"""A legend with more entries may have a last row that is not full."""


def new_figure(
    width: float, n_panels: int, title: str, handles: Sequence[Artist], notes: Sequence[str], share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure with empty panels side by side, title and legend above them, and notes below them.

    Args:
        width: width of the figure in inches.
        n_panels: the number of panels.
        title: the title; empty for none.
        handles: the entries of the legend.
        notes: lines of small text.
        share_y: whether the panels share their y axis.
    """
    figure = Figure(figsize=(width, PANEL_HEIGHT), layout="constrained")
    legend = _add_legend(figure, handles, title)
    if notes:
        figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=6.5, color="#404040", linespacing=1.1)
    legend_height = legend.get_window_extent().height / figure.dpi
    figure.set_figheight(PANEL_HEIGHT + legend_height + 0.115 * len(notes))
    return figure, list(figure.subplots(1, n_panels, sharey=share_y, squeeze=False)[0])


def _add_legend(figure: Figure, handles: Sequence[Artist], title: str) -> Legend:
    """Add the legend above the panels: in one row if the figure is wide enough, else in full rows of fewer columns.

    Of more than :data:`MANY` entries the last row need not be full: full rows could be many and short.
    """
    count = len(handles)
    for columns in (n for n in range(count, 0, -1) if count > MANY or count % n == 0):
        legend = figure.legend(
            handles=list(handles),
            title=plain(title),
            title_fontsize=9.5,
            loc="outside upper center",
            ncols=columns,
            frameon=False,
            borderpad=0,
            handlelength=2.6,
            handletextpad=0.6,
            columnspacing=1.2,
            labelspacing=0.35,
        )
        if columns == 1 or legend.get_window_extent().width < 0.97 * figure.bbox.width:
            break
        legend.remove()
    return legend


def one_model(files: Sequence[MetricsFile], stem: Path) -> None:
    """Check that the measurements are of exactly one model on one dataset.

    Raises:
        UserError: if they are not.
    """
    check_one_model(files, f"The figure {stem}", "measurements", "metrics")


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean and sample standard deviation over seeds by number of edits: the columns ``mean`` and ``std``."""
    return values.groupby("n_edits")["value"].agg(["mean", "std"])


def curve_points(values: pd.DataFrame) -> list[Shown]:
    """Return the points of curves, by editor and number of edits, from :func:`malmen.figures.metrics.long_form`."""
    shown = []
    for (editor, n_edits), rows in values.groupby(["editor", "n_edits"]):
        spread = rows.groupby("metric", sort=False)["value"].agg(["mean", "std"])
        values_shown = {str(metric): numbers for metric, numbers in spread.to_dict("index").items()}
        of = {"editor": str(editor), "n_edits": as_python(n_edits)}
        shown.append(Shown.from_origins(of, values_shown, OVER_SEEDS, origins(rows)))
    return shown


def set_edits_axis(axes: Axes, n_edits: pd.Series) -> None:
    """Set m on a log2 axis with ticks at powers of two."""
    low, high = n_edits.min(), n_edits.max()
    # Within one octave the margin is large enough for at least one power of two.
    margin = (high / low) ** 0.06 if high >= 2 * low else 2**0.8
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(r"number of edits $m$")


def draw_curve(
    axes: Axes, spread: pd.DataFrame, style: EditorStyle, shift: float = 0.0, floor: float = -np.inf
) -> None:
    """Draw one editor's mean and standard deviation.

    Args:
        axes: where to draw; x is the number of edits.
        spread: what :func:`over_seeds` returned.
        style: the editor's look.
        shift: horizontal shift to the right, in powers of two.
        floor: lower limit of the deviation, for an axis that does not reach 0.
    """
    x = spread.index.to_numpy(dtype=float) * 2**shift
    mean, std = spread["mean"].to_numpy(), spread["std"].to_numpy()
    below = np.minimum(std, mean - floor)
    axes.fill_between(x, mean - below, mean + std, color=style.colour, alpha=0.18, linewidth=0)
    # A shade needs two neighbouring points; a single point shows its standard deviation as a bar.
    known = np.pad(np.isfinite(std), 1)
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    bars = np.stack([below, std])[:, alone]
    axes.errorbar(x[alone], mean[alone], bars, fmt="none", ecolor=style.colour, elinewidth=0.8, capsize=1.5)
    # Markers at the border are whole: they may leave the panel.
    axes.plot(x, mean, clip_on=False, zorder=3, **line_settings(style))


def draw_before(axes: Axes, mean: pd.Series) -> None:
    """Draw the value before the edit from border to border; only which facts are edited changes it along the x axis.

    Args:
        axes: where to draw, with its limits set.
        mean: the values by x, some perhaps NaN.
    """
    known = mean.dropna()
    if not len(known):
        return
    x = np.geomspace(*axes.get_xlim(), num=257) if axes.get_xscale() == "log" else np.linspace(*axes.get_xlim(), 257)
    places = known.index.to_numpy(dtype=float)
    wrap = np.log2 if axes.get_xscale() == "log" else np.asarray
    axes.plot(x, np.interp(wrap(x), wrap(places), known.to_numpy()), color=GREY, linestyle=":", zorder=1.5)


def line_settings(style: EditorStyle) -> dict[str, Any]:
    """Return the settings of an editor's line, for matplotlib."""
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.line,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        **({"markersize": style.size} if style.size else {}),
    }


def legend_line(style: EditorStyle, label: str) -> Line2D:
    """Return an editor's entry in a legend."""
    return Line2D([], [], label=label, **line_settings(style))


def editor_lines(files: Sequence[MetricsFile], styles: Mapping[str, EditorStyle]) -> list[Artist]:
    """Return the entries of several editors in a legend, in drawing order."""
    labels = {item.editor: plain(item.editor_label) for item in files}
    return [legend_line(style, labels[editor]) for editor, style in styles.items()]


def divergence_notes(files: Sequence[MetricsFile], width: int) -> list[str]:
    """Return lines of at most ``width`` characters that name the diverged runs."""
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
    """Return ``number`` as text, as a power of two if it is one."""
    exponent = number.bit_length() - 1
    return f"$2^{{{exponent}}}$" if number == 2**exponent else str(number)
