"""Tables of decoded failures: answers that are wrong after a group of edits (appendix A.8, Tables 4 and 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from malmen.figures.metrics import write_csv
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import Cell, ColumnGroup, Grid, Line, Span, write_grid
from malmen.results.answers import Answer, is_right
from malmen.results.failures import AnsweredPrompt, AnsweredTuple, FailuresFile
from malmen.results.sources import Origin, Shown
from malmen.runtime.files import beside

Which = Literal["edited", "unrelated"]
"""Failures of edit and equivalent tuples (Table 4), or of unrelated ones (Table 5)."""

TITLES: dict[Which, str] = {
    "edited": "Wrong answers to edit or equivalent prompts",
    "unrelated": "Answers to unrelated prompts that the edits spoiled",
}
KINDS = ("edit", "equivalent", "unrelated")
COLUMNS = ("Prompt", "Target answer", "Pre-edit answer", "Post-edit answer")
FORCED = (
    "An answer is read under teacher forcing: each token is the most probable one after the right tokens before it, so "
    "a wrong answer can join parts of several words."
)
REMARK = "Wrong tokens are bold and underlined; ✓ and ✗ say whether an answer is right as a whole."
DECODED = "prompts and decoded answers, as they are"
BLANK = "␣"
"""Printed for a wrong token that would be invisible."""


def write_failures(source: Path, which: Which, limit: int, data: str, stem: Path, setting: Setting = PAPERS) -> None:
    """Write a table of failures as ``stem.md``, ``.html``, ``.tex`` (needs ``booktabs``) and ``.csv``.

    The three prompts of a record stay together. The table shows the first ``limit`` failing records; the CSV holds all,
    with a row per prompt: its answers, plain and with each wrong token in double angle quotes.

    Args:
        source: a failures file.
        which: the kind of failures to show.
        limit: the largest number of records shown.
        data: the printed name of the data set.
        stem: path of the results without suffix.
        setting: the setting of the run.

    Raises:
        UserError: if the file is missing or malformed.
    """
    content = FailuresFile.read(source)
    failing = [record for record in content.records if _failed(record, which)]
    grid = Grid(
        caption=setting.after(_caption(content, which, min(limit, len(failing)), len(failing), data)),
        corner="Tuple",
        groups=(ColumnGroup((), COLUMNS),),
        blocks=tuple(tuple(_line(kind, getattr(record, kind)) for kind in KINDS) for record in failing[:limit]),
        notes=(),
        remark=REMARK,
        prose=True,
    )
    write_grid(grid, stem, [_shown(content, record, source) for record in failing])
    write_csv(beside(stem, ".csv"), _long_form(failing))


def _shown(content: FailuresFile, record: AnsweredTuple, source: Path) -> Shown:
    """Return the source of a record's answers."""
    of = {"id": record.id, "editor": content.editor, "model_label": content.model_label}
    return Shown.from_origins(of, {"records": record.id}, DECODED, (Origin(source, content.n_edits, content.seed),))


def _caption(content: FailuresFile, which: Which, shown: int, failing: int, data: str) -> str:
    edited = f"{content.model_label} on {data} after {content.n_edits} edits at once by {content.editor_label}"
    part = f"the first {shown} of {failing}" if shown < failing else f"all {failing}"
    return f"{TITLES[which]}: {edited} (seed {content.seed}); {part} such tuples, out of {content.n_edits}. {FORCED}"


def _failed(record: AnsweredTuple, which: Which) -> bool:
    """Return whether the edit or equivalent answer is wrong, or the unrelated one is wrong and was right."""
    if which == "edited":
        return not (is_right(record.edit.after) and is_right(record.equivalent.after))
    return is_right(record.unrelated.before) and not is_right(record.unrelated.after)


def _line(kind: str, answered: AnsweredPrompt) -> Line:
    answers = [
        Cell((*spans(answer), Span(" ✓" if is_right(answer) else " ✗"))) for answer in (answered.before, answered.after)
    ]
    return (Cell(kind), Cell(answered.prompt), Cell(answered.target), *answers)


def spans(answer: Answer) -> list[Span]:
    """Mark the wrong parts of an answer, without the spaces before them; replace invisible parts by a sign."""
    result = []
    for number, piece in enumerate(answer):
        word = piece.text.lstrip()
        space = piece.text[: len(piece.text) - len(word)] if number else ""
        result += [Span(space + word)] if piece.right else [Span(space), Span(word or BLANK, marked=True)]
    return [span for span in result if span.text]


def _long_form(records: Sequence[AnsweredTuple]) -> pd.DataFrame:
    """Return one row per record and prompt."""
    rows = []
    for record in records:
        for kind in KINDS:
            answered: AnsweredPrompt = getattr(record, kind)
            row = {"id": record.id, "tuple": kind, "prompt": answered.prompt, "target": answered.target}
            for when, answer in (("before", answered.before), ("after", answered.after)):
                marked = spans(answer)
                row[when] = "".join(piece.text for piece in answer).strip()
                row[f"{when}_marked"] = "".join(f"«{span.text}»" if span.marked else span.text for span in marked)
                row[f"{when}_right"] = str(is_right(answer)).lower()
            rows.append(row)
    columns = [
        "id",
        "tuple",
        "prompt",
        "target",
        *(f"{when}{part}" for when in ("before", "after") for part in ("", "_marked", "_right")),
    ]
    return pd.DataFrame(rows, columns=columns)
