"""Peak memory of one meta-step against the number of edits (paper, section 5.2, Figure 9)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from malmen.figures.curves import legend_line, line_settings, new_figure, set_edits_axis
from malmen.figures.metrics import write_csv
from malmen.figures.setting import PAPERS, Setting, notes_of
from malmen.figures.style import COLUMN_WIDTH, GREY, KNOWN, plain, save, theme
from malmen.results.memory import MemoryFile, MemoryPoint
from malmen.results.sources import Origin, Shown
from malmen.runtime.files import beside

STYLES = {"concatenated": KNOWN["mend"], "separated": KNOWN["malmen"]}
"""The looks of the two computations, in drawing order: the paper's MEND-style and MALMEN."""

UNITS = {"GiB": 2**30, "MiB": 2**20}
"""Units of memory, as tables choose between them (:func:`malmen.figures.compute.bytes_text`)."""


def draw_memory(path: Path, stem: Path, title: str, labels: Mapping[str, str], setting: Setting = PAPERS) -> None:
    """Draw peak memory (GiB, or MiB if all is below one GiB) against m: ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    The grey dotted line is a process that has only loaded the model; a cross at the limit is a step that exceeded it.

    Args:
        path: the measurements.
        stem: path of the results without suffix.
        title: the title; empty for none.
        labels: the printed names of ``separated`` and ``concatenated``.
        setting: the setting of the run, named under the panel.

    Raises:
        UserError: if the measurements cannot be read.
    """
    measured = MemoryFile.read(path)
    with theme():
        figure = _compose(measured, title, labels, setting)
    save(figure, stem, [_shown(path, point) for point in measured.points])
    write_csv(beside(stem, ".csv"), pd.DataFrame([point.model_dump() for point in measured.points]))


def _shown(path: Path, point: MemoryPoint) -> Shown:
    """Return the source of a point."""
    of: dict[str, str | int] = {"computation": point.computation, "n_edits": point.n_edits}
    return Shown.from_origins(
        of, point.model_dump(include={"status", "peak_bytes", "seconds"}), "as measured", (Origin(path),)
    )


def _compose(measured: MemoryFile, title: str, labels: Mapping[str, str], setting: Setting) -> Figure:
    handles: list[Artist] = [legend_line(style, plain(labels[name])) for name, style in STYLES.items()]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="model loaded"))
    if any(point.status != "ok" for point in measured.points):
        handles.append(Line2D([], [], **_cross(GREY), label="over the limit"))
    figure, (axes,) = new_figure(COLUMN_WIDTH, 1, title, handles, notes_of(setting, [], width=70))
    _draw_panel(axes, measured)
    return figure


def _draw_panel(axes: Axes, measured: MemoryFile) -> None:
    sizes = pd.Series([point.n_edits for name in STYLES for point in measured.steps(name)])
    set_edits_axis(axes, sizes)
    highest = max(_height(measured, point) for point in measured.points)
    unit = next((name for name, size in UNITS.items() if highest >= size), "MiB")
    axes.set_ylabel(f"peak memory ({unit})")
    loaded = next(point.peak_bytes or 0 for point in measured.points if point.computation == "loaded")
    axes.axhline(loaded / UNITS[unit], color=GREY, linestyle=":", zorder=1.5)
    for name, style in STYLES.items():
        for status, look in (("ok", line_settings(style)), ("over the limit", _cross(style.colour))):
            steps = [step for step in measured.steps(name) if step.status == status]
            heights = [_height(measured, step) / UNITS[unit] for step in steps]
            if steps:  # the layout would leave room for a line without points
                axes.plot([step.n_edits for step in steps], heights, clip_on=False, zorder=3, **look)
    axes.set_ylim(0, 1.08 * highest / UNITS[unit])


def _height(measured: MemoryFile, point: MemoryPoint) -> int:
    """Return the height of a point in bytes: its peak, or the limit that it exceeded."""
    return point.peak_bytes or measured.limit_bytes or 0


def _cross(colour: str) -> dict[str, Any]:
    return {"color": colour, "linestyle": "none", "marker": "x", "markersize": 5, "markeredgewidth": 1.2}
