"""The table of costs: time and peak memory of every editor at every m (section 5.1, last lines)."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.figures.costs import CostFiles
from malmen.figures.metrics import write_csv
from malmen.figures.published import read_published
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import DASH, Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.costs import CostsFile
from malmen.results.sources import AS_PUBLISHED, Origin, Shown
from malmen.runtime.files import beside

PUBLISHED = ("model", "model_label", "editor", "editor_label", "n_edits", "total_seconds", "device", "source")
"""The columns of the file of published times."""
COLUMNS = ("train_seconds", "train_peak_bytes", "edit_seconds", "edit_peak_bytes", "total_seconds")
"""The costs of each editor and m; ``total_seconds`` is training plus one group of edits."""


MEANS = "means over seeds of the fields 'seconds' and 'peak_bytes'"
"""How the numbers are computed."""


@dataclass(frozen=True)
class PricedEditor:
    """One editor on one model, with its files of costs.

    Attributes:
        model: key of the model.
        model_label: its name in tables.
        editor: key of the editor.
        editor_label: its name in tables.
        costs: its files of costs.
    """

    model: str
    model_label: str
    editor: str
    editor_label: str
    costs: CostFiles

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "PricedEditor":
        """Return an object from strings, with ``training`` and ``editing`` instead of ``costs``."""
        paths = {name: tuple(map(Path, raw[name])) for name in ("training", "editing")}
        names = {name: raw[name] for name in ("model", "model_label", "editor", "editor_label")}
        return cls(**names, costs=CostFiles(**paths))


def compute_costs(priced: Sequence[PricedEditor]) -> pd.DataFrame:
    """Return one row per model, editor and m, with :data:`COLUMNS`: means over seeds, NaN if there are none.

    Raises:
        UserError: if a file is missing or holds no cost.
    """
    tables = []
    for item in priced:
        phases = [_read(item.costs.training).add_prefix("train_"), _read(item.costs.editing).add_prefix("edit_")]
        table = pd.concat(phases, axis=1).sort_index().reindex(columns=list(COLUMNS))
        # What needs no training costs none; what was trained and then not measured (it diverged) has no total.
        table["total_seconds"] = table["edit_seconds"] + (table["train_seconds"] if item.costs.training else 0.0)
        table = table.reset_index()
        for place, name in enumerate(("model", "model_label", "editor", "editor_label")):
            table.insert(place, name, getattr(item, name))
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _read(paths: Sequence[Path]) -> pd.DataFrame:
    """Return mean ``seconds`` and ``peak_bytes`` over seeds, by ``n_edits``."""
    costs = [cost for path in paths for cost in CostsFile.read(path).root]
    records = [(cost.run.n_edits, cost.seconds, float(cost.peak_bytes)) for cost in costs]
    return pd.DataFrame(records, columns=["n_edits", "seconds", "peak_bytes"]).groupby("n_edits").mean()


def write_compute(
    priced: Sequence[PricedEditor], published: Path, data: str, stem: Path, setting: Setting = PAPERS
) -> None:
    """Write the table of costs as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv``.

    Args:
        priced: the editors, in printing order.
        published: the paper's times.
        data: the printed names of the data sets.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if a file cannot be read.
    """
    ours, paper = compute_costs(priced), read_published(published, PUBLISHED)
    grid = _grid(ours, paper, data, setting)
    write_grid(grid, stem, [*_shown(ours, priced), *_shown_of_paper(paper, published)])
    write_csv(beside(stem, ".csv"), pd.concat([ours.assign(device=setting.device, source="this run"), paper]))


def _shown(ours: pd.DataFrame, priced: Sequence[PricedEditor]) -> Iterator[Shown]:
    """Yield the sources of our times and sizes."""
    files = {(item.model, item.editor): item.costs for item in priced}
    for row in ours.to_dict("records"):
        of = {name: row[name] for name in ("model", "model_label", "editor", "editor_label", "n_edits")}
        costs = files[row["model"], row["editor"]]
        yield Shown.from_origins(of, {name: row[name] for name in COLUMNS}, MEANS, costs.origins(row["n_edits"]))


def _shown_of_paper(paper: pd.DataFrame, published: Path) -> Iterator[Shown]:
    """Yield the sources of the paper's times."""
    for row in paper.to_dict("records"):
        of = {"model": row["model"], "editor": row["editor"], "n_edits": row["n_edits"], "source": row["source"]}
        yield Shown.from_origins(of, {"total_seconds": row["total_seconds"]}, AS_PUBLISHED, (Origin(published),))


def _grid(ours: pd.DataFrame, paper: pd.DataFrame, data: str, setting: Setting) -> Grid:
    rows = [_line(row, italic=False) for row in ours.to_dict("records")]
    blocks = [tuple(block) for _, block in groupby(rows, key=lambda line: line[0].text)]
    sources = "; ".join(dict.fromkeys(f"{row.source}, {row.device}" for row in paper.itertuples()))
    memory = "the allocator's peak" if setting.device == "cuda" else "the largest resident size of the process"
    return Grid(
        caption=setting.after("Time and peak memory to train an editor, and to edit one group of m facts with it."),
        corner="Editor",
        groups=(
            ColumnGroup(("Edits",), ("m",)),
            ColumnGroup(("Training",), ("time", "memory")),
            ColumnGroup(("Editing",), ("time", "memory")),
            ColumnGroup(("Both",), ("time",)),
        ),
        blocks=(*blocks, tuple(_line(row, italic=True) for row in paper.to_dict("records"))),
        notes=(),
        remark=(
            f"Data: {data}. Means over seeds, on {'a GPU' if setting.device == 'cuda' else 'a CPU'}. Times are "
            f"{setting.clock}; memory is {memory}. A "
            "dash means that the editor is not trained, or that its training diverged and nothing was measured. The "
            f"paper's times are in italics ({sources})."
        ),
    )


def _line(row: Mapping[Hashable, Any], italic: bool) -> Line:
    """Return a printed line, with dashes for missing quantities."""
    values = {name: float(row.get(name, math.nan)) for name in COLUMNS}
    cells = [f"{row['model_label']}, {row['editor_label']}", f"{row['n_edits']:,}"]
    cells += [(bytes_text if name.endswith("bytes") else time_text)(value) for name, value in values.items()]
    return tuple(Cell(text, italic=italic) for text in cells)


def time_text(seconds: float) -> str:
    """Return a time in a suitable unit; a dash for NaN."""
    if math.isnan(seconds):
        return DASH
    if seconds < 0.01:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def bytes_text(size: float) -> str:
    """Return a size in MiB or GiB; a dash for NaN."""
    if math.isnan(size):
        return DASH
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
