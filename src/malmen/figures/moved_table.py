"""How far training moved each kind of a hyper-network's parameters, editor by editor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.figures.metrics import write_csv
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import DASH, Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.run import Run
from malmen.results.sources import Origin, Shown
from malmen.results.training import TrainingFile
from malmen.runtime.files import beside

KINDS = {
    "eta": "eta, a learning rate per layer",
    "log_regularisation": "log of lambda, a regulariser per layer",
    "A": "A, the linear map into a block",
    "B": "B, the linear map out of a block",
    "bias": "the bias of a block",
    "scale": "scales of a block, per layer",
    "shift": "shifts of a block, per layer",
}
"""The kinds of parameters, and what a table calls them."""
HOW = "means over seeds of the field 'moved'"
"""How the numbers are computed."""


@dataclass(frozen=True)
class TrainedEditor:
    """One editor with its trainings for one m.

    Attributes:
        editor: its key.
        label: its printed name.
        trainings: by seed the file of its training.
    """

    editor: str
    label: str
    trainings: Mapping[int, Path]

    @classmethod
    def of(cls, raw: Mapping[str, Any], n_edits: int) -> "TrainedEditor":
        """Return an object from what a rule gives: ``editor``, ``label``, ``seeds``, and ``folders`` of trainings."""
        found = {
            seed: place
            for seed in raw["seeds"]
            for folder in raw["folders"]
            if (place := Path(folder, Run(n_edits, seed).name, "training.json")).is_file()
        }
        return cls(raw["editor"], raw["label"], found)

    def means(self) -> dict[str, dict[str, float | None]]:
        """Return by kind the means over seeds of the largest and the relative change; raise ``UserError`` if broken."""
        files = [TrainingFile.read(path) for path in self.trainings.values()]
        moved = [file.moved for file in files if file.moved]
        found = {}
        for kind in KINDS:
            table = pd.DataFrame([vars(one[kind]) for one in moved], columns=["largest", "relative"], dtype=float)
            found[kind] = {name: None if pd.isna(mean) else float(mean) for name, mean in table.mean().items()}
        return {kind: {str(name): value for name, value in values.items()} for kind, values in found.items()}


def write_moved(
    editors: Sequence[TrainedEditor], n_edits: int, stem: Path, setting: Setting = PAPERS, data: str = ""
) -> None:
    """Write the table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv``.

    Args:
        editors: the editors, from left to right.
        n_edits: the m for which they were trained.
        stem: path of the results without suffix.
        setting: the setting of the run.
        data: the printed name of the data set.

    Raises:
        UserError: if a file is missing or malformed.
    """
    means = {item.editor: item.means() for item in editors}
    grid = Grid(
        caption=setting.after(f"How far training moved the parameters of a hyper-network, m = {n_edits}."),
        corner="Parameters",
        groups=tuple(ColumnGroup((item.label,), ("largest change", "relative")) for item in editors),
        blocks=(tuple(_line(kind, [means[item.editor][kind] for item in editors]) for kind in KINDS),),
        notes=(),
        remark=(
            f"Data: {data}. Means over seeds. Largest change: of a single number. Relative: the norm of the change of "
            "all networks, blocks and layers, divided by that of the initial values; a dash where these are 0."
        ),
    )
    write_grid(grid, stem, list(_shown(editors, means, n_edits)))
    rows = [
        {"editor": item.editor, "editor_label": item.label, "n_edits": n_edits, "parameters": kind, **values}
        for item in editors
        for kind, values in means[item.editor].items()
    ]
    write_csv(beside(stem, ".csv"), pd.DataFrame(rows))


def _line(kind: str, values: Sequence[Mapping[str, float | None]]) -> Line:
    numbers = [one[name] for one in values for name in ("largest", "relative")]
    return (Cell(KINDS[kind]), *(Cell(DASH if number is None else f"{number:.2g}") for number in numbers))


def _shown(
    editors: Sequence[TrainedEditor], means: Mapping[str, Mapping[str, Mapping[str, float | None]]], n_edits: int
) -> Iterator[Shown]:
    """Yield the sources of the numbers."""
    for item in editors:
        origins = [Origin(path, n_edits, seed) for seed, path in item.trainings.items()]
        for kind, values in means[item.editor].items():
            yield Shown.from_origins(
                {"editor": item.editor, "parameters": kind, "n_edits": n_edits}, values, HOW, origins
            )
