"""What editors cost in rounds: preparation, training, seconds for an edit, peak memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.figures.compute import bytes_text, time_text
from malmen.figures.metrics import write_csv
from malmen.figures.rounds_values import printed_rounds
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.costs import CostsFile
from malmen.results.rounds import RoundsCostsFile
from malmen.results.sources import Origin, Shown
from malmen.runtime.files import beside

COLUMNS = ("train_seconds", "seconds_per_edit", "peak_bytes")
"""The numbers of an editor in rounds of one kind."""
MEANS = "mean and sample standard deviation over seeds"
"""How the numbers are computed."""


@dataclass(frozen=True)
class PricedRounds:
    """One editor with its files of costs.

    Attributes:
        editor: its key.
        label: its printed name.
        rounds: files of costs in rounds.
        training: files of costs of trainings; empty for editors without training.
        preparation: files of costs of what is made once per model, as a covariance of keys; empty if nothing is.
    """

    editor: str
    label: str
    rounds: tuple[Path, ...]
    training: tuple[Path, ...] = ()
    preparation: tuple[Path, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "PricedRounds":
        """Return an object from strings; ``training`` and ``preparation`` may be absent."""
        paths = {name: tuple(map(Path, raw.get(name, ()))) for name in ("rounds", "training", "preparation")}
        return cls(raw["editor"], raw["label"], **paths)


@dataclass(frozen=True)
class Price:
    """A number over seeds, and the runs behind it."""

    values: tuple[float, ...]
    origins: tuple[Origin, ...]

    @property
    def mean(self) -> float:
        """The mean, without what was not measured; NaN if nothing was."""
        return float(pd.Series(self.values, dtype=float).mean())

    @property
    def std(self) -> float:
        """The sample standard deviation; NaN of fewer than two numbers."""
        return float(pd.Series(self.values, dtype=float).std(ddof=1))


def write_rounds_costs(
    priced: Sequence[PricedRounds],
    rounds: Sequence[str],
    model: str,
    data: str,
    stem: Path,
    setting: Setting = PAPERS,
) -> None:
    """Write the table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv`` (seconds and bytes).

    Args:
        priced: the editors, from top to bottom.
        rounds: names of rounds, such as ``8x64``: one block of columns each. A block's training is that for its m.
        model: the model's printed name.
        data: the printed name of the data set.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if a file cannot be read.
    """
    prices = {item.editor: _prices(item, rounds) for item in priced}
    preparations = {item.editor: _preparation(item) for item in priced}
    memory = "the allocator's peak" if setting.device == "cuda" else "the largest resident size of the process"
    grid = Grid(
        caption=setting.after(f"What editors of {model} on {data} cost in rounds: means over seeds."),
        corner="Editor",
        groups=(
            ColumnGroup(("Once",), ("preparation",)),
            *(ColumnGroup((printed_rounds(name),), ("training", "per edit", "memory")) for name in rounds),
        ),
        blocks=(tuple(_line(item.label, preparations[item.editor], prices[item.editor]) for item in priced),),
        notes=(),
        remark=(
            "Preparation: the covariance of keys, once per model. Training: of the editor for the m of these rounds. "
            f"Per edit: the time of all rounds over all edits. Memory: {memory} while editing. Measuring is not "
            f"counted. {setting.clock_sentence} A dash means that there is no such step, or that nothing was measured."
        ),
    )
    write_grid(grid, stem, list(_shown(priced, prices, preparations)))
    write_csv(beside(stem, ".csv"), _table(priced, prices, preparations))


def _prices(item: PricedRounds, rounds: Sequence[str]) -> dict[str, dict[str, Price]]:
    """Return the numbers of :data:`COLUMNS` by rounds."""
    costs = [(path, cost) for path in item.rounds for cost in RoundsCostsFile.read(path).root]
    trained = [(path, cost) for path in item.training for cost in CostsFile.read(path).root]
    found = {}
    for name in rounds:
        n_edits = int(name.split("x")[1])
        some = [(path, cost) for path, cost in costs if f"{cost.n_rounds}x{cost.n_edits}" == name]
        training = [(path, cost) for path, cost in trained if cost.run.n_edits == n_edits]
        edited = tuple(Origin(path, cost.n_edits, cost.seed) for path, cost in some)
        found[name] = {
            "train_seconds": Price(
                tuple(cost.seconds for _, cost in training),
                tuple(Origin(path, cost.run.n_edits, cost.run.seed) for path, cost in training),
            ),
            "seconds_per_edit": Price(tuple(cost.seconds_per_edit for _, cost in some), edited),
            "peak_bytes": Price(tuple(float(cost.peak_bytes) for _, cost in some), edited),
        }
    return found


def _preparation(item: PricedRounds) -> Price:
    """Return the time of what is made once."""
    costs = [(path, cost) for path in item.preparation for cost in CostsFile.read(path).root]
    return Price(tuple(cost.seconds for _, cost in costs), tuple(Origin(path) for path, _ in costs))


def _line(label: str, preparation: Price, prices: Mapping[str, Mapping[str, Price]]) -> Line:
    cells = [label, time_text(preparation.mean)]
    for columns in prices.values():
        cells += [time_text(columns["train_seconds"].mean), time_text(columns["seconds_per_edit"].mean)]
        cells.append(bytes_text(columns["peak_bytes"].mean))
    return tuple(map(Cell, cells))


def _table(
    priced: Sequence[PricedRounds],
    prices: Mapping[str, Mapping[str, Mapping[str, Price]]],
    preparations: Mapping[str, Price],
) -> pd.DataFrame:
    """Return one row per editor and rounds, with mean and deviation of each number."""
    records = []
    for item in priced:
        for name, columns in prices[item.editor].items():
            of = {"editor": item.editor, "editor_label": item.label, "rounds": name}
            means = {column: price.mean for column, price in columns.items()}
            spread = {f"{column}_std": price.std for column, price in columns.items()}
            records.append({**of, "preparation_seconds": preparations[item.editor].mean, **means, **spread})
    return pd.DataFrame(records)


def _shown(
    priced: Sequence[PricedRounds],
    prices: Mapping[str, Mapping[str, Mapping[str, Price]]],
    preparations: Mapping[str, Price],
) -> Iterator[Shown]:
    """Yield the sources of the numbers; what was not measured has none."""
    for item in priced:
        if item.preparation:
            made = preparations[item.editor]
            of: dict[str, str | int] = {"editor": item.editor, "what": "preparation"}
            yield Shown.from_origins(of, {"preparation_seconds": made.mean}, MEANS, made.origins)
        for name, columns in prices[item.editor].items():
            for some, what in ((("train_seconds",), "training"), (("seconds_per_edit", "peak_bytes"), "editing")):
                found = columns[some[0]].origins
                if not found:
                    continue
                of = {"editor": item.editor, "what": what, "rounds": name}
                numbers = {column: {"mean": columns[column].mean, "std": columns[column].std} for column in some}
                yield Shown.from_origins(of, numbers, MEANS, found)
