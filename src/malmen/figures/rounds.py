"""ES, GS and LS after all rounds, against the number of rounds at a fixed number of edits in all."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from malmen.errors import UserError
from malmen.figures.metrics import write_csv
from malmen.figures.rounds_panels import METRICS, compose, diverged_notes, points, setting_notes
from malmen.figures.rounds_values import COLUMNS, long_form, read_rounds, single_model
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.style import TEXT_WIDTH, save, theme
from malmen.runtime.files import beside

MANY_TICKS = 5
"""A panel has at most as many labels on the axis of rounds."""


def draw_rounds(
    paths: Sequence[Path],
    stem: Path,
    title: str,
    total: int,
    setting: Setting = PAPERS,
    width: float = TEXT_WIDTH,
) -> None:
    """Draw ES, GS and LS after all rounds and write ``stem.pdf``, ``stem.png`` and ``stem.csv``.

    Three panels share the y axis (percent). The line is the mean over seeds, the shade one sample standard deviation to
    both sides, the grey dotted line the unedited model, averaged over editors and seeds. Diverged runs do not count and
    are named under the panels. The CSV holds the values in shares; ``stem.sources.json`` names their runs.

    Args:
        paths: rounds files of one model and dataset; the editors are in the legend in the order of their files.
        stem: path of the results without suffix.
        title: the title; empty for none.
        total: T m, the number of all edits; other runs in the files are ignored.
        setting: the setting of the run, named under the panels.
        width: width in inches.

    Raises:
        UserError: if a file is malformed, there are no such runs, or they are of several models or datasets.
    """
    files = read_rounds(paths)
    names = {run.rounds for item in files for run in item.runs if run.n_rounds * run.n_edits == total}
    if not names:
        raise UserError(f"The figure {stem} shows {total} edits in all, and no run has as many; choose another total.")
    files = read_rounds(paths, names)
    single_model(files, stem)
    values = long_form(files, METRICS)
    said = f"All {total:,} edits are measured after the last round."
    notes = [*diverged_notes(files), *setting_notes(setting, files, values, said)]

    def set_axis(axes: Axes) -> None:
        _set_rounds_axis(axes, sorted({run.n_rounds for item in files for run in item.runs}), total)

    with theme():
        figure = compose(files, values, "n_rounds", set_axis, title, notes, width)
    save(figure, stem, points(values))
    write_csv(beside(stem, ".csv"), values[list(COLUMNS)])


def _set_rounds_axis(axes: Axes, rounds: Sequence[int], total: int) -> None:
    """Set T on a log2 axis, with a tick for each: the rounds, and below them the edits of each."""
    low, high = rounds[0], rounds[-1]
    margin = (high / low) ** 0.06 if high > low else 2**0.8
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(rounds)))
    axes.xaxis.set_minor_locator(NullLocator())
    # Every label of a few ticks; of many so few that they do not touch.
    step = -(-len(rounds) // MANY_TICKS)
    labels = [f"{n}\n× {total // n}" if place % step == 0 else "" for place, n in enumerate(rounds)]
    axes.set_xticklabels(labels, linespacing=0.85)
    axes.set_xlabel(r"rounds $T$ × edits in each $m$")
