"""Tables with a header that users write: values separated by commas (CSV), semicolons or tabs (TSV)."""

import ast
import csv
import json
import re
from collections.abc import Iterator, Set
from typing import Any

from malmen.data.user_text import UserText
from malmen.errors import UserError
from malmen.runtime.text import short_repr

DELIMITERS = ("\t", ",", ";")
SEPARATOR = "|"
"""What stands between several texts in a cell."""
LISTS = {
    "rephrasings",
    "rephrase_prompt",
    "rephrase",
    "paraphrase_prompts",
    "neighborhood_prompts",
    "equiv_prompt",
    "equivalent",
}
"""The columns whose cells may hold several texts, and that may be numbered."""
STRUCTURED = LISTS | {"requested_rewrite", "locality", "ground_truth", "answers", "edit", "unrelated", "portability"}
"""The columns whose cells may hold a list or an object, written as JSON or as Python writes it."""


def delimiter_of(line: str, columns: Set[str]) -> str | None:
    """Return what separates the columns of a header; None if a line is not one.

    Args:
        line: the line.
        columns: the names of which a header has at least one.
    """
    headers = {
        delimiter: [column_of(cell, columns)[0] for cell in cells_of(line, delimiter)] for delimiter in DELIMITERS
    }
    known = {delimiter: len(columns & set(names)) for delimiter, names in headers.items() if len(names) > 1}
    best = max(known, key=lambda delimiter: known[delimiter], default=None)
    return best if best and known[best] else None


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def column_of(cell: str, columns: Set[str]) -> tuple[str, bool]:
    """Return the name of a column, and whether it is numbered, such as ``Rephrasing 2``: one text of a list.

    Case does not count, and a space is an underscore.
    """
    name = re.sub(r"[\s-]+", "_", cell.strip()).casefold()
    if name not in columns and (numbered := re.fullmatch(r"(.*?)_?\d+", name)):
        for whole in (numbered[1], f"{numbered[1]}s"):
            if whole in LISTS & columns:
                return whole, True
    return (name if name in columns else cell.strip()), False


def rows(text: UserText, delimiter: str, columns: Set[str]) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """Yield the line, the cells by column, and what is wrong with each row of a table; blank rows are passed over.

    Raises:
        UserError: if two columns have one name.
    """
    numbers = [0, 0]  # The lines where the last row began and ended.

    def lines() -> Iterator[str]:
        for number, line in text.lines():
            numbers[1] = number
            yield f"{line}\n"

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    header = [column_of(cell, columns) for cell in next(reader)]
    single = [name for name, numbered in header if not numbered and name]
    for name in single:
        if single.count(name) > 1 or (name, True) in header:
            raise UserError(f"{text.name}, line 1: two columns are called {short_repr(name)}; rename one of them.")
    while True:
        numbers[0] = numbers[1] + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield numbers[0], {}, f"not a valid row ({error})"
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        wrong = f"{len(cells)} cells under {len(header)} columns (quote a cell that holds {delimiter!r})"
        yield numbers[0], row_of(header, cells), None if len(cells) == len(header) else wrong


def row_of(header: list[tuple[str, bool]], cells: list[str]) -> dict[str, Any]:
    """Return the values of a row by column."""
    row: dict[str, Any] = {}
    for (name, numbered), cell in zip(header, cells, strict=False):
        if numbered:
            row.setdefault(name, [])
            row[name] += [cell] if cell.strip() else []
        elif name:
            row[name] = value_of(name, cell)
    return row


def value_of(name: str, cell: str) -> Any:
    """Return what a cell holds: text, or in some columns a list or an object."""
    if name in STRUCTURED and cell.lstrip()[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(cell.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if name in LISTS:
        return [part for part in cell.split(SEPARATOR) if part.strip()]
    return cell
