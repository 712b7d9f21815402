"""The JSON values in a file that a user wrote: one on each line, a list of them, or objects over several lines."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.errors import UserError

MAGIC = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a file compressed by gzip",
    b"BZh": "a file compressed by bzip2",
    b"\x28\xb5\x2f\xfd": "a file compressed by Zstandard",
    b"\x80\x04": "a pickled Python object",
    b"\0": "binary or damaged (it begins with NUL bytes)",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""How files of other formats begin."""
LOOKS = {
    r"\s*<": "HTML or XML",
    r"version https://git-lfs": "a pointer of Git LFS in place of the file (git lfs pull fetches it)",
    r"[^\t]+\t": "text with tabs between the columns",
    r"---|- |\w+:( |$)": "YAML",
    r"[^,]+,": "CSV",
    r"[^;]+;": "CSV with semicolons",
}
"""How the first lines of other formats look."""
PANDAS = {".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".xlsx": "read_excel"}
"""Functions of pandas that read tables, by the end of a file's name."""


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


def read_values(path: Path, wanted: str) -> list[Value]:
    """Read the JSON values in a file. Blank lines and a byte order mark are passed over.

    Args:
        path: the file.
        wanted: what it should contain, for messages.

    Raises:
        UserError: if there is no such file, or it has another format.
    """
    if not path.exists() or path.is_dir():  # It may be a pipe, as a shell's <(...) is.
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; check the path.")
    text = text_in(path, wanted)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        return []
    begins_in_a_line = value_in(lines[0][1], "").wrong is None
    is_list = text.lstrip().startswith("[")
    if is_list or (text.lstrip().startswith("{") and not begins_in_a_line):
        try:
            return apart(text, is_list)
        except (ValueError, RecursionError) as error:
            if is_list and not begins_in_a_line:
                line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
                raise UserError(f"{path}{line}: {reason_of(error)}; correct the JSON list.") from None
    values = [value_in(line, f"line {number}") for number, line in lines]
    if all(value.wrong for value in values) and not any(line.lstrip()[0] in "{[" for _, line in lines):
        looks = (what for pattern, what in LOOKS.items() if re.match(pattern, lines[0][1]))
        raise UserError(another_format(path, next(looks, "plain text"), wanted))
    return values


def text_in(path: Path, wanted: str) -> str:
    """Return the text of a file, with the line ends of Unix.

    Raises:
        UserError: if it is not text in UTF-8.
    """
    content = path.read_bytes()
    for magic, what in MAGIC.items():
        if content.startswith(magic):
            raise UserError(another_format(path, what, wanted))
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}) in line {line}; save it as UTF-8, or download it again."
        ) from None


def another_format(path: Path, what: str, wanted: str) -> str:
    """Say what a file seems to be, and what it should contain."""
    reader = PANDAS.get(path.suffix.lower())
    how = f' (pandas.{reader}("{path.name}") and its to_json(..., orient="records") do it)' if reader else ""
    return f"{path} seems to be {what}, but must contain {wanted}; convert it{how}."


def apart(text: str, is_list: bool) -> list[Value]:
    """Return the values of a JSON list, or the JSON values that follow each other in a text.

    Raises:
        ValueError: if the text is neither.
    """
    if is_list:
        json.loads(text)  # The commas between values are where they should be.
    decoder = json.JSONDecoder(object_pairs_hook=without_repeated_keys)
    begin, end = (text.index("[") + 1, text.rindex("]")) if is_list else (0, len(text))
    gap = re.compile(r"[\s,]*" if is_list else r"\s*")
    found: list[tuple[int, Any]] = []
    line, seen = 1, 0
    while (begin := gap.match(text, begin).end()) < end:  # type: ignore[union-attr] # It matches anywhere.
        line, seen = line + text.count("\n", seen, begin), begin
        content, begin = decoder.raw_decode(text, begin)
        found.append((line, content))
    lines = {line for line, _ in found}
    return [
        Value(f"line {line}" if len(lines) == len(found) else f"record {number}", content)
        for number, (line, content) in enumerate(found, start=1)
    ]


def value_in(line: str, where: str) -> Value:
    """Return the value in a line, or why it is not JSON."""
    try:
        return Value(where, json.loads(line, object_pairs_hook=without_repeated_keys))
    except (ValueError, RecursionError) as error:
        return Value(where, wrong="not valid JSON (it holds a NUL byte)" if "\0" in line else reason_of(error))


def reason_of(error: Exception) -> str:
    """Return what Python's JSON parser says, in a few words."""
    return f"not valid JSON ({getattr(error, 'msg', error)})"


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ``ValueError`` if a key occurs twice, since one of its values would be lost."""
    most = Counter(key for key, _ in pairs).most_common(1)
    if most and most[0][1] > 1:
        raise ValueError(f"the field {most[0][0]!r} occurs twice")
    return dict(pairs)
