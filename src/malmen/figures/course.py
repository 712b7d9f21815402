"""ES, GS and LS of all edits so far, against the rounds made."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from malmen.figures.metrics import write_csv
from malmen.figures.rounds_panels import METRICS, compose, diverged_notes, points, setting_notes
from malmen.figures.rounds_values import COLUMNS, long_form, places, read_rounds, single_model
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.style import TEXT_WIDTH, save, theme
from malmen.runtime.files import beside

MANY_TICKS = 8
"""A logarithmic axis has at most as many ticks."""


def draw_course(
    paths: Sequence[Path],
    stem: Path,
    title: str,
    rounds: str,
    setting: Setting = PAPERS,
    width: float = TEXT_WIDTH,
) -> None:
    """Draw ES, GS and LS during the rounds and write ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    It looks as :func:`malmen.figures.rounds.draw_rounds` does. Each point is measured on all edits so far. The line of
    an editor ends where all its runs have diverged.

    Args:
        paths: rounds files of one model and dataset; the editors are in the legend in the order of their files.
        stem: path of the results without suffix.
        title: the title; empty for none.
        rounds: the name of the rounds, such as ``64x8``; other runs in the files are ignored.
        setting: the setting of the run, named under the panels.
        width: width in inches.

    Raises:
        UserError: if a file is malformed, there are no such runs, or they are of several models or datasets.
    """
    files = read_rounds(paths, {rounds})
    single_model(files, stem)
    n_edits = files[0].runs[0].n_edits
    values = long_form(files, METRICS, course=True)
    notes = [*diverged_notes(files), *setting_notes(setting, files, values, "A point is measured on all edits so far.")]

    def set_axis(axes: Axes) -> None:
        _set_course_axis(axes, places(files, rounds), n_edits)

    with theme():
        figure = compose(files, values, "after", set_axis, title, notes, width)
    save(figure, stem, points(values))
    write_csv(beside(stem, ".csv"), values[list(COLUMNS)])


def _set_course_axis(axes: Axes, after: Sequence[int], n_edits: int) -> None:
    """Set the rounds made on an axis: a logarithmic one if they span more than three octaves."""
    low, high = after[0], after[-1]
    if high >= 8 * low:
        margin = (high / low) ** 0.06
        axes.set_xscale("log", base=2)
        axes.set_xlim(low / margin, high * margin)
        kept = after[:: -(-len(after) // MANY_TICKS)]
        axes.xaxis.set_major_locator(FixedLocator(sorted({*kept, high})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
    else:
        margin = 0.06 * (high - low) or 0.8
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel(f"rounds made, of {n_edits:,} edit{'' if n_edits == 1 else 's'} each")
