"""Editors side by side at once and in rounds, with the unedited model above them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.errors import UserError
from malmen.figures.metrics import write_csv
from malmen.figures.rounds_values import (
    OVER_SEEDS,
    divergence,
    origins_of,
    printed_rounds,
    read_rounds,
    scale,
    single_model,
)
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import DASH, Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.rounds import MEASURES, UNEDITED, RoundsFile, RoundsRun
from malmen.results.sources import Shown
from malmen.runtime.files import beside

ABSENT = {"not run", "no such measure"}
"""The statuses of empty cells."""
OF_UNEDITED = "mean over editors with each seed, then mean and sample standard deviation over seeds"
"""How the numbers of the unedited model are computed."""


@dataclass(frozen=True)
class Value:
    """A number of the table, a row of its CSV.

    Attributes:
        row: the key of its row.
        rounds: the name of its rounds.
        metric: the measure.
        mean: the mean over seeds.
        std: their sample standard deviation.
        n_seeds: the number of seeds of the mean.
        status: ``ok``, ``diverged`` (all seeds), ``partly diverged``, ``not run`` or ``no such measure``.
    """

    row: str
    rounds: str
    metric: str
    mean: float
    std: float
    n_seeds: int
    status: str

    @classmethod
    def of(cls, row: str, rounds: str, metric: str, values: Sequence[float], status: str) -> "Value":
        """Return the number over the values of seeds, NaN of those that diverged."""
        known = pd.Series(values, dtype=float).dropna()
        status = "no such measure" if status == "ok" and known.empty else status
        mean, std = float(known.mean()), float(known.std(ddof=1))
        return cls(row, rounds, metric, mean, std, len(known), status)


@dataclass(frozen=True)
class RoundsRow:
    """One editor in the table.

    Attributes:
        key: its key, the ``variant`` of the configuration.
        label: its printed name.
        files: its rounds files, of all seeds.
    """

    key: str
    label: str
    files: tuple[Path, ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "RoundsRow":
        """Return an object from what a rule gives: ``variant``, ``label`` and ``files``."""
        return cls(raw["variant"], raw["label"], tuple(map(Path, raw["files"])))


def write_rounds_table(
    rows: Sequence[RoundsRow],
    rounds: Sequence[str],
    measures: Sequence[str],
    data: str,
    stem: Path,
    setting: Setting = PAPERS,
) -> None:
    """Write the table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv`` (long form, unrounded).

    A cell is the mean (sample standard deviation over seeds), shares in percent. The best printed mean of each column
    is bold; rows with diverged seeds do not count. A row all of whose seeds diverged has a dash and a footnote.

    Args:
        rows: the editors, from top to bottom.
        rounds: names of rounds, such as ``1x512``: one block of columns each; other runs in the files are ignored.
        measures: names in :data:`malmen.results.rounds.MEASURES`: the columns of a block.
        data: the printed name of the data set.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if a file is malformed, a measure is unknown, or the files do not hold exactly one model.
    """
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise UserError(f"The table {stem} asks for the measure {unknown[0]!r}; choose from {', '.join(MEASURES)}.")
    files = {row.key: read_rounds(row.files, rounds) for row in rows}
    everything = [item for some in files.values() for item in some]
    model = single_model(everything, stem)
    runs = {(key, name): _runs(some, name) for key, some in files.items() for name in rounds}
    values = _values(runs, everything, measures)
    labels = {UNEDITED: "unedited model", **{row.key: row.label for row in rows}}
    notes = _notes(runs, labels)
    caption = setting.after(
        f"Editors in rounds, {model.model_label} on {data}: mean (standard deviation over seeds); shares in percent."
    )
    grid = Grid(
        caption=caption,
        corner="Editor",
        groups=tuple(ColumnGroup((printed_rounds(name),), tuple(heads(measures))) for name in rounds),
        blocks=_blocks(values, labels, notes),
        notes=tuple(notes.values()),
        remark=(
            "All edits are measured after the last round. The best of each column is bold; the unedited model does not "
            f"count. {explained(measures)}"
        ),
    )
    write_grid(grid, stem, list(_shown(values, runs, everything)))
    write_csv(beside(stem, ".csv"), pd.DataFrame(values))


def heads(measures: Iterable[str]) -> Iterator[str]:
    """Yield the heads of columns, with an arrow to the better side."""
    for name in measures:
        yield f"{MEASURES[name].label} {'↑' if MEASURES[name].higher else '↓'}"


def explained(measures: Iterable[str]) -> str:
    """Return what measures are, in sentences."""
    return " ".join(f"{MEASURES[name].label}: {MEASURES[name].about}." for name in measures)


def _runs(files: Sequence[RoundsFile], rounds: str) -> list[RoundsRun]:
    return [run for item in files for run in item.runs if run.rounds == rounds]


def _values(
    runs: Mapping[tuple[str, str], Sequence[RoundsRun]], files: Sequence[RoundsFile], measures: Sequence[str]
) -> list[Value]:
    """Return the numbers of the unedited model, then of the editors."""
    rounds = dict.fromkeys(name for _, name in runs)
    found = []
    for name in rounds:
        for measure in measures:
            seeds: dict[int, list[float]] = {}
            for run in _runs(files, name):
                seeds.setdefault(run.seed, []).append(run.value(f"pre_{measure}"))
            # All editors edit the same with one seed.
            values = [float(pd.Series(some, dtype=float).mean()) for some in seeds.values()]
            found.append(Value.of(UNEDITED, name, measure, values, "ok"))
    for (row, name), some in runs.items():
        found += [
            Value.of(row, name, measure, [run.value(measure) for run in some], _status(some)) for measure in measures
        ]
    return found


def _status(runs: Sequence[RoundsRun]) -> str:
    """Return ``ok``, ``diverged`` (all seeds), ``partly diverged`` or ``not run``."""
    failed = sum(run.status == "diverged" for run in runs)
    if not runs:
        return "not run"
    if failed:
        return "diverged" if failed == len(runs) else "partly diverged"
    return "ok"


def _notes(
    runs: Mapping[tuple[str, str], Sequence[RoundsRun]], labels: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Return the footnotes on diverged runs, by row and rounds."""
    said = {key: divergence(some) for key, some in runs.items()}
    return {(row, name): f"{labels[row]}, {printed_rounds(name)}: {text}" for (row, name), text in said.items() if text}


def _blocks(
    values: Sequence[Value], labels: Mapping[str, str], notes: Mapping[tuple[str, str], str]
) -> tuple[tuple[Line, ...], ...]:
    """Return the line of the unedited model, and apart from it those of the editors."""
    best = _best(values)
    numbers = {key: place for place, key in enumerate(notes, start=1)}
    lines: dict[str, list[Cell]] = {}
    for value in values:
        unedited = value.row == UNEDITED
        line = lines.setdefault(value.row, [Cell(labels[value.row], italic=unedited)])
        text = "" if value.status in ABSENT else number(value.metric, value.mean, value.std)
        bold = counts(value) and number(value.metric, value.mean) == best[value.rounds, value.metric]
        # The footnote stands at the first column of a block.
        note = numbers.pop((value.row, value.rounds), None)
        line.append(Cell(text, bold=bold, italic=unedited, note=note))
    first, *others = [tuple(line) for line in lines.values()]
    return ((first,), tuple(others))


def counts(value: Value) -> bool:
    """Return whether a number can be the best of its column."""
    return value.status == "ok" and value.row != UNEDITED


def _best(values: Sequence[Value]) -> dict[tuple[str, str], str]:
    """Return the best printed mean of each column."""
    columns: dict[tuple[str, str], list[float]] = {}
    for value in filter(counts, values):
        columns.setdefault((value.rounds, value.metric), []).append(value.mean)
    return {
        (rounds, metric): number(metric, (max if MEASURES[metric].higher else min)(means))
        for (rounds, metric), means in columns.items()
    }


def number(measure: str, mean: float, std: float = math.nan) -> str:
    """Return ``mean (std)``, the mean alone if there is no deviation, a dash if there is no mean."""
    if math.isnan(mean):
        return DASH
    factor = scale(measure)
    texts = [f"{factor * value:.1f}" if factor != 1 else f"{value:.3g}" for value in (mean, std)]
    return texts[0] if math.isnan(std) else f"{texts[0]} ({texts[1]})"


def _shown(
    values: Sequence[Value],
    runs: Mapping[tuple[str, str], Sequence[RoundsRun]],
    files: Sequence[RoundsFile],
) -> Iterator[Shown]:
    """Yield the sources of the numbers."""
    for row, rounds in dict.fromkeys((value.row, value.rounds) for value in values):
        unedited = row == UNEDITED
        numbers = {
            f"pre_{value.metric}" if unedited else value.metric: {"mean": value.mean, "std": value.std}
            for value in values
            if (value.row, value.rounds) == (row, rounds)
        }
        some = _runs(files, rounds) if unedited else runs[row, rounds]
        of = {"row": row, "rounds": rounds, "model": files[0].model}
        yield Shown.from_origins(of, numbers, OF_UNEDITED if unedited else OVER_SEEDS, origins_of(some))
