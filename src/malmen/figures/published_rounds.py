"""Numbers that later papers published, below ours, by source and protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from malmen.figures.metrics import write_csv
from malmen.figures.published import read_published
from malmen.figures.rounds_table import number
from malmen.figures.rounds_values import OVER_SEEDS, divergence, origins_of, read_rounds, single_model
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import Cell, ColumnGroup, Grid, Line, write_grid
from malmen.results.rounds import RoundsFile, RoundsRun
from malmen.results.sources import AS_PUBLISHED, Origin, Shown
from malmen.runtime.files import beside

SCORES = ("ES", "GS", "LS", "agreement")
"""The measures that stand beside ours."""
ONLY_PUBLISHED = ("capability", "seconds_per_edit", "total_seconds")
"""Other numbers of the published table."""
OF = ("source", "protocol", "dataset", "model", "editor", "rounds", "n_edits", "total", "decoding")
"""What a published number is of."""
COLUMNS = (*OF, *SCORES, *ONLY_PUBLISHED, "read_in", "note")
"""The columns of the file of published numbers."""
READ_IN = ("paper", "note")
"""Where a number was read: in the paper itself, or in a public note that quotes it."""
HEADS = ("Data", "Model", "Editor", "T × m", "Decoding", "ES ↑", "GS ↑", "LS ↑", "Agreement ↑", "Other")
"""The heads of the columns after the first."""
TEACHER_FORCED = "teacher-forced"
OURS = "this run"


@dataclass(frozen=True)
class Ours:
    """What one editor reached in rounds of one kind.

    Attributes:
        file: of its model and editor.
        rounds: the name of the rounds.
        runs: all seeds.
    """

    file: RoundsFile
    rounds: str
    runs: tuple[RoundsRun, ...]

    def spread(self, measure: str) -> tuple[float, float]:
        """Return mean and sample standard deviation over seeds; NaN of a measure that was not made."""
        values = pd.Series([run.value(measure) for run in self.runs], dtype=float)
        return float(values.mean()), float(values.std(ddof=1))


def write_published(
    paths: Sequence[Path],
    editors: Sequence[str],
    rounds: Sequence[str],
    published: Path,
    data: str,
    stem: Path,
    setting: Setting = PAPERS,
) -> None:
    """Write the table as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv``.

    Our block stands on top; then comes a block for each source and protocol, whose footnote describes the protocol.

    Args:
        paths: rounds files of one model, of all seeds.
        editors: keys of our editors, from top to bottom.
        rounds: names of our rounds; other runs in the files are ignored.
        published: a CSV with the columns :data:`COLUMNS`, successes in percent.
        data: the printed name of our data set.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if a file is malformed, or the rounds files do not hold exactly one model.
    """
    files = read_rounds(paths, rounds)
    single_model(files, stem)
    ours = list(_ours(files, editors, rounds))
    paper = read_published(published, COLUMNS, as_text=True)
    records = [{name: str(row[name]) for name in COLUMNS} for row in paper.to_dict("records")]
    blocks = [list(some) for _, some in groupby(records, key=lambda one: (one["source"], one["protocol"]))]
    said = [f"{labelled(item)}: {text}" for item in ours if (text := divergence(item.runs))]
    protocols = [f"{some[0]['protocol']}." for some in blocks]
    grid = Grid(
        caption=setting.after("Published numbers of editors at once and in rounds, below those of this run."),
        corner="Source",
        groups=(ColumnGroup((), HEADS),),
        blocks=(
            tuple(_our_line(item, data, place == 0) for place, item in enumerate(ours)),
            *(tuple(_lines(some, place)) for place, some in enumerate(blocks, start=1)),
        ),
        notes=tuple(protocols),
        remark=" ".join(
            [
                "Successes are in percent; ours are mean (standard deviation over seeds). Protocols differ, and so do "
                "models and data: compare numbers within a block. In italics: read in a public note that quotes the "
                "paper, not in the paper itself. Where a source does not say how many edits a round has, one number is "
                "that of all edits. “Decoding” is empty where the source does not state it.",
                *said,
            ]
        ),
    )
    write_grid(grid, stem, [*_shown_of_ours(ours), *_shown_of_papers(records, published)])
    write_csv(beside(stem, ".csv"), pd.concat([_table(ours, data), paper], ignore_index=True))


def _ours(files: Sequence[RoundsFile], editors: Sequence[str], rounds: Sequence[str]) -> Iterator[Ours]:
    for name in rounds:
        for editor in editors:
            found = [item for item in files if item.editor == editor]
            runs = tuple(run for item in found for run in item.runs if run.rounds == name)
            if runs:
                yield Ours(found[0], name, runs)


def labelled(item: Ours) -> str:
    """Return the printed name of an editor with its rounds."""
    return f"{item.file.editor_label}, {item.rounds.replace('x', '×')}"


def _our_line(item: Ours, data: str, first: bool) -> Line:
    run = item.runs[0]
    of = [data, item.file.model_label, item.file.editor_label, _size(run.n_rounds, run.n_edits), TEACHER_FORCED]
    numbers = [number(measure, *item.spread(measure)) for measure in SCORES]
    return tuple(map(Cell, [OURS if first else "", *of, *numbers, ""]))


def _lines(some: Sequence[Mapping[str, str]], place: int) -> Iterator[Line]:
    """Yield the lines of a source and protocol; the first one names them."""
    for order, record in enumerate(some):
        cells = [record[name] for name in ("dataset", "model", "editor")]
        cells += [_size_of(record), record["decoding"], *(record[name] for name in SCORES), _other(record)]
        head = Cell(record["source"] if order == 0 else "", note=place if order == 0 else None)
        yield (head, *(Cell(text, italic=record["read_in"] == "note") for text in cells))


def _size_of(record: Mapping[str, str]) -> str:
    """Return rounds and edits of each, or all edits if the source does not say how many a round has."""
    if record["rounds"] and record["n_edits"]:
        return _size(int(record["rounds"]), int(record["n_edits"]))
    if record["n_edits"]:
        return f"T × {record['n_edits']}"
    return f"{int(record['total']):,}" if record["total"] else ""


def _size(n_rounds: int, n_edits: int) -> str:
    return f"{n_rounds:,} × {n_edits:,}"


def _other(record: Mapping[str, str]) -> str:
    """Return the other numbers and the remark of a published row."""
    texts = [
        f"capability {record['capability']}" if record["capability"] else "",
        f"{record['seconds_per_edit']} s per edit" if record["seconds_per_edit"] else "",
        f"{_time(float(record['total_seconds']))} in all" if record["total_seconds"] else "",
        record["note"],
    ]
    return ", ".join(filter(None, texts))


def _time(seconds: float) -> str:
    """Return a time as papers give it."""
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _table(ours: Sequence[Ours], data: str) -> pd.DataFrame:
    """Return our numbers in the columns of the published ones: unrounded means in percent."""
    records = []
    for item in ours:
        run = item.runs[0]
        of = {"source": OURS, "dataset": data, "model": item.file.model_label, "editor": item.file.editor_label}
        size = {"rounds": run.n_rounds, "n_edits": run.n_edits, "total": run.n_rounds * run.n_edits}
        scores = {measure: 100 * item.spread(measure)[0] for measure in SCORES}
        records.append({**of, **size, "decoding": TEACHER_FORCED, **scores})
    return pd.DataFrame(records, columns=list(COLUMNS))


def _shown_of_ours(ours: Sequence[Ours]) -> Iterator[Shown]:
    """Yield the sources of our numbers."""
    for item in ours:
        spreads = {measure: item.spread(measure) for measure in SCORES}
        numbers = {measure: {"mean": mean, "std": std} for measure, (mean, std) in spreads.items()}
        of = {"editor": item.file.editor, "rounds": item.rounds, "model": item.file.model}
        yield Shown.from_origins(of, numbers, OVER_SEEDS, origins_of(item.runs))


def _shown_of_papers(records: Sequence[Mapping[str, str]], published: Path) -> Iterator[Shown]:
    """Yield the sources of the published numbers."""
    for record in records:
        numbers = {name: float(record[name]) for name in (*SCORES, *ONLY_PUBLISHED) if record[name]}
        # The key "source" puts them among the papers' on the lineage page.
        kept = {name: record[name] for name in OF if name not in ("source", "protocol", "model") and record[name]}
        of = {"source": "paper", "paper": record["source"], "of_model": record["model"], **kept}
        if numbers:
            yield Shown.from_origins(of, numbers, AS_PUBLISHED, (Origin(published),))
