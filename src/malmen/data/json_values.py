"""The values in a file that a user wrote: JSON on each line, a JSON list, objects over several lines, or a table."""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.data import tables
from malmen.data.user_text import MalformedError, UserText, another_format, opened
from malmen.errors import UserError

LOOKS = {
    r"\s*<": "HTML or XML",
    r"version https://git-lfs": "a pointer of Git LFS in place of the file (git lfs pull fetches it)",
    r"[^\t]+\t": "text with tabs between the columns",
    r"---|- |\w+:( |$)": "YAML",
    r"[^,]+,": "CSV",
    r"[^;]+;": "CSV with semicolons",
}
"""How the first lines of other formats look."""


@dataclass(frozen=True)
class Value:
    """A value in a file.

    Attributes:
        where: its place: "line 3", or "record 3" if several values stand on one line.
        content: the value; None if it cannot be read.
        wrong: why it cannot be read.
    """

    where: str
    content: Any = None
    wrong: str | None = None


@dataclass(frozen=True)
class Found:
    """A value with the line on which it begins."""

    line: int
    content: Any
    repeated: str | None


def read_values(path: Path, wanted: str, columns: Set[str] = frozenset()) -> Iterator[Value]:
    """Yield the values in a file, one after the other. Blank lines and a byte order mark are passed over.

    Only the value that is read is in memory, and of a file that is not JSON or a table its beginning.

    Args:
        path: the file; ``-`` is standard input.
        wanted: what it should contain, for messages.
        columns: the columns of which a table has at least one; without any, tables are refused.

    Raises:
        UserError: if there is no such file, it has another format, or its JSON list is malformed.
    """
    with opened(path, wanted) as text:
        first = text.pass_over()
        if first == "[":
            yield from placed(items_of_list(text))
        elif first == "{":
            yield from objects(text)
        elif first:
            yield from other_lines(text, wanted, columns)


def objects(text: UserText) -> Iterator[Value]:
    """Yield the values of a text that begins with an object: one a line, or objects that follow each other."""
    if value_in(text.first_line(), "").wrong is None:
        yield from values_in_lines(text)
        return
    line = text.line
    try:
        first = Found(line, *text.value())
    except MalformedError:
        yield from values_in_lines(text)
    else:
        yield from placed(following(text, first))


def other_lines(text: UserText, wanted: str, columns: Set[str]) -> Iterator[Value]:
    """Yield the rows of a table, or the values of a text some of whose lines are JSON."""
    line = text.first_line()
    if delimiter := tables.delimiter_of(line, columns):
        for number, row, wrong in tables.rows(text, delimiter, columns):
            yield Value(f"line {number}", row, wrong)
        return
    is_json = value_in(line, "").wrong is None
    if not is_json and not any(other.lstrip()[:1] in ("{", "[") for other in text.head().split("\n")):
        looks = (what for pattern, what in LOOKS.items() if re.match(pattern, line))
        raise UserError(another_format(text.name, next(looks, "plain text"), wanted))
    yield from values_in_lines(text)


def values_in_lines(text: UserText) -> Iterator[Value]:
    """Yield the value of each line that is not blank."""
    for number, line in text.lines():
        if line.strip():
            yield value_in(line, f"line {number}")


def value_in(line: str, where: str) -> Value:
    """Return the value in a line, or why it is not JSON."""
    alone = UserText(Path(), iter([line.strip()]))
    try:
        content, repeated = alone.value()
        if alone.pass_over():
            return Value(where, wrong="not valid JSON (Extra data)")
    except MalformedError as error:
        return Value(where, wrong="not valid JSON (it holds a NUL byte)" if "\0" in line else str(error))
    return Value(where, content, twice(repeated))


def twice(repeated: str | None) -> str | None:
    """Say that a field occurs twice, since one of its values would be lost."""
    return f"not valid JSON (the field {repeated!r} occurs twice)" if repeated is not None else None


def items_of_list(text: UserText) -> Iterator[Found]:
    """Yield the items of a JSON list; raise :class:`UserError` if it is malformed."""
    try:
        after = text.pass_over(r"\[\s*")
        while after != "]":
            yield Found(text.line, *text.value())
            after = text.pass_over()
            if after not in (",", "]"):
                raise MalformedError("Expecting ',' delimiter", text.line)
            if after == "," and text.pass_over(r",\s*") == "]":
                raise MalformedError("Illegal trailing comma before end of array", text.line)
        if text.pass_over(r"\]\s*"):
            raise MalformedError("Extra data", text.line)
    except MalformedError as error:
        raise UserError(f"{text.name}, line {error.line}: {error}; correct the JSON list.") from None


def following(text: UserText, first: Found) -> Iterator[Found]:
    """Yield JSON values that follow each other, the first of which was read already."""
    yield first
    try:
        while text.pass_over():
            yield Found(text.line, *text.value())
    except MalformedError as error:
        raise UserError(f"{text.name}, line {error.line}: {error}; correct it.") from None


def placed(found: Iterator[Found]) -> Iterator[Value]:
    """Give values their places: the line of one that begins no line with another, else its number."""

    def place(number: int, item: Found, before: int, after: int) -> Value:
        where = f"record {number}" if item.line in (before, after) else f"line {item.line}"
        return Value(where, item.content, twice(item.repeated))

    before, last, number = 0, next(found, None), 1
    for item in found:
        assert last is not None  # There was one before this.
        yield place(number, last, before, item.line)
        before, last, number = last.line, item, number + 1
    if last is not None:
        yield place(number, last, before, 0)
