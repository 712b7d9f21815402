"""What the two figures on editing in rounds share: three panels, a line per editor, and the notes below."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from malmen.figures.curves import draw_before, draw_curve, legend_line, new_figure
from malmen.figures.metrics import as_python, of_seeds, origins
from malmen.figures.rounds_values import OVER_SEEDS, labels_of
from malmen.figures.setting import Setting
from malmen.figures.style import GREY, TEXT_WIDTH, EditorStyle, editor_styles, plain
from malmen.results.rounds import RoundsFile
from malmen.results.sources import Shown

PANELS = {"ES": "Edit success (ES)", "GS": "Generalisation success (GS)", "LS": "Locality success (LS)"}
METRICS = (*PANELS, *(f"pre_{metric}" for metric in PANELS))
"""The measures that the figures hold."""
LOW = 60
"""If all LS are at most as high, in percent, its panel has an axis of its own."""
NOTE_WIDTH = 150
"""The largest number of characters of a line of the notes."""


def compose(
    files: Sequence[RoundsFile],
    values: pd.DataFrame,
    by: str,
    set_axis: Callable[[Axes], None],
    title: str,
    notes: Sequence[str],
    width: float = TEXT_WIDTH,
) -> Figure:
    """Return a figure with a panel for each of ES, GS and LS.

    Args:
        files: the runs.
        values: their values, as :func:`malmen.figures.rounds_values.long_form` returns them.
        by: the column on the x axis.
        set_axis: sets the x axis of a panel.
        title: the title; empty for none.
        notes: lines of small text below the panels.
        width: width in inches.
    """
    labels = labels_of(files)
    known = editor_styles(labels)
    styles = {editor: known[editor] for editor in labels}
    handles = [legend_line(style, plain(labels[editor])) for editor, style in styles.items()]
    before = Line2D([], [], color=GREY, linestyle=":", label="unedited model")
    figure, panels = new_figure(width, len(PANELS), title, [*handles, before], notes, share_y=False)
    for axes, metric in zip(panels, PANELS, strict=True):
        axes.set_title(PANELS[metric])
        set_axis(axes)
        _set_success_axis(axes, _top(values, metric))
        draw_before(axes, 100 * values[values["metric"] == f"pre_{metric}"].groupby(by)["value"].mean())
        _draw_editors(axes, values[values["metric"] == metric], by, styles)
    panels[0].set_ylabel("success (%)")
    return figure


def _top(values: pd.DataFrame, metric: str) -> int:
    """Return where the y axis of a panel ends, in percent: LS, which is often low, may have an axis of its own."""
    largest = 100 * values[values["metric"].isin([metric, f"pre_{metric}"])]["value"].max()
    return 100 if metric != "LS" or not largest <= LOW else max(10, int(-(-largest // 10) * 10))


def _set_success_axis(axes: Axes, top: int) -> None:
    """Set a success in percent on the y axis; margins keep markers at 0 and at the top inside the frame."""
    axes.set_ylim(-0.04 * top, 1.04 * top)
    axes.set_yticks(range(0, top + 1, 20 if top > LOW else 10))


def _draw_editors(axes: Axes, values: pd.DataFrame, by: str, styles: dict[str, EditorStyle]) -> None:
    """Draw the editors, MALMEN on top; at a single place on the x axis they stand side by side."""
    single = values[by].nunique() == 1
    order = sorted(styles, key=lambda editor: editor == "malmen")
    for editor in order:
        shift = (list(styles).index(editor) - (len(styles) - 1) / 2) * 0.6 / len(styles) if single else 0.0
        spread = 100 * values[values["editor"] == editor].groupby(by)["value"].agg(["mean", "std"])
        draw_curve(axes, spread, styles[editor], shift)


def diverged_notes(files: Sequence[RoundsFile]) -> list[str]:
    """Return lines that name the diverged runs."""
    labels = labels_of(files)
    runs = [(item.editor, run) for item in files for run in item.runs]
    total = Counter((editor, run.n_rounds, run.n_edits) for editor, run in runs)
    failed = Counter((editor, run.n_rounds, run.n_edits) for editor, run in runs if run.status == "diverged")
    named: dict[str, list[str]] = {}
    order = list(labels)
    for key in sorted(failed, key=lambda one: (order.index(one[0]), *one[1:])):
        editor, n_rounds, n_edits = key
        of = of_seeds(failed[key], total[key])
        named.setdefault(editor, []).append(f"{n_rounds:,}×{n_edits:,} ({of})")
    text = "; ".join(f"{plain(labels[editor])} at {', '.join(some)}" for editor, some in named.items())
    return textwrap.wrap(f"Diverged: {text}.", NOTE_WIDTH) if named else []


def setting_notes(setting: Setting, files: Sequence[RoundsFile], values: pd.DataFrame, said: str) -> list[str]:
    """Return lines on the setting, on what a point is (``said``), on seeds and on the axis of LS."""
    seeds = len({run.seed for item in files for run in item.runs})
    over = f"Means over {seeds} seeds; shades are one standard deviation." if seeds > 1 else "One seed."
    axis = " LS has an axis of its own." if _top(values, "LS") < 100 else ""
    return [line for text in (setting.note, f"{said} {over}{axis}") for line in textwrap.wrap(text, NOTE_WIDTH)]


def points(values: pd.DataFrame) -> list[Shown]:
    """Return the drawn points by editor, rounds, and rounds made, with their sources."""
    shown = []
    for (editor, n_rounds, n_edits, after), rows in values.groupby(
        ["editor", "n_rounds", "n_edits", "after"], sort=False
    ):
        spread = rows.groupby("metric", sort=False)["value"].agg(["mean", "std"])
        numbers = {str(metric): number for metric, number in spread.to_dict("index").items()}
        of = {"editor": str(editor), "rounds": f"{n_rounds}x{n_edits}", "after": as_python(after)}
        shown.append(Shown.from_origins(of, numbers, OVER_SEEDS, origins(rows)))
    return shown
