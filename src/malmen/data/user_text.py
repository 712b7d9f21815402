"""The text of a file that a user wrote, read a block at a time: files, pipes and standard input."""

import codecs
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from malmen.errors import UserError

STANDARD_INPUT = Path("-")
"""What a user writes for standard input."""
BLOCK = 1 << 16
"""Bytes that are read at once."""
LONGEST_WORD = 20
"""More characters than a number's sign, a literal or an escape of JSON takes."""

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
PANDAS = {".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".xlsx": "read_excel"}
"""Functions of pandas that read tables, by the end of a file's name."""


def named(path: Path) -> Path:
    """Return what messages and reports call a file."""
    return Path("standard input") if path == STANDARD_INPUT else path


def another_format(path: Path, what: str, wanted: str) -> str:
    """Say what a file seems to be, and what it should contain."""
    reader = PANDAS.get(path.suffix.lower())
    how = f' (pandas.{reader}("{path.name}") and its to_json(..., orient="records") do it)' if reader else ""
    return f"{path} seems to be {what}, but must contain {wanted}; convert it{how}."


class UserText:
    """A text of which only the part that is looked at is in memory, with the line ends of Unix.

    Attributes:
        name: what messages call its file.
        line: the number of the line at which reading has arrived.
    """

    def __init__(self, name: Path, blocks: Iterator[str]) -> None:
        self.name = name
        self.line = 1
        self._blocks = blocks
        self._text = ""
        self._at = 0
        self._ended = False
        self._repeated: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._noting_repeated_keys)

    def more(self) -> bool:
        """Read at least as much again as is in memory; return whether there was more to read."""
        parts = [self._text[self._at :]]
        wanted = max(len(parts[0]), 1)
        while wanted > 0 and not self._ended:
            block = next(self._blocks, None)
            self._ended = block is None
            parts.append(block or "")
            wanted -= len(parts[-1])
        grown = sum(map(len, parts[1:])) > 0
        self._text, self._at = "".join(parts), 0
        return grown

    def head(self) -> str:
        """Return the beginning of what is left, some ten thousand characters if there are as many."""
        if len(self._text) - self._at < BLOCK // 4:
            self.more()
        return self._text[self._at : self._at + BLOCK]

    def pass_over(self, pattern: str = r"\s*") -> str:
        """Pass over a regular expression, which may match nothing; return the next character, empty at the end."""
        compiled = re.compile(pattern)
        while True:
            end = self._matched(compiled)
            if end < len(self._text) or not self.more():
                break
        self._advance(self._matched(compiled))
        return self._text[self._at : self._at + 1]

    def _matched(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        return found.end() if found else self._at

    def first_line(self) -> str:
        """Return the line that is next, without its end, and stay before it."""
        while (end := self._text.find("\n", self._at)) < 0 and self.more():
            pass
        return self._text[self._at : end if end >= 0 else None]

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of each line that is left."""
        while True:
            number, line = self.line, self.first_line()
            if not line and self._at >= len(self._text):
                return
            self._advance(min(self._at + len(line) + 1, len(self._text)))
            yield number, line

    def value(self) -> tuple[Any, str | None]:
        """Return the JSON value that is next, and a field that occurs twice in one of its objects; pass over it.

        Raises:
            MalformedError: if it is not valid JSON; the text stays before it.
        """
        while True:
            self._repeated = None
            try:
                content, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # A value that goes on in the next block looks wrong at the end of this one, or in its last string.
                at_end = error.pos > len(self._text) - LONGEST_WORD or error.msg.startswith("Unterminated")
                if at_end and self.more():
                    continue
                line = self.line + self._text.count("\n", self._at, error.pos)
                raise MalformedError(error.msg, line) from None
            except (ValueError, RecursionError) as error:
                raise MalformedError(str(error), self.line) from None
            if end == len(self._text) and self.more():  # Digits may follow.
                continue
            self._advance(end)
            return content, self._repeated

    def _advance(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _noting_repeated_keys(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            self._repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        return content


class MalformedError(ValueError):
    """What is wrong with a JSON value, and in which line."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(f"not valid JSON ({what})")
        self.line = line


@contextmanager
def opened(path: Path, wanted: str) -> Iterator[UserText]:
    """Open the text of a file, of a pipe (as a shell's <(...) is one), or of standard input (``-``).

    Args:
        path: the file.
        wanted: what it should contain, for messages.

    Raises:
        UserError: if there is no such file; when it is read, if it is not text in UTF-8.
    """
    if path == STANDARD_INPUT:
        yield UserText(named(path), blocks_of(sys.stdin.buffer, named(path), wanted))
        return
    if not path.exists() or path.is_dir():
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; check the path.")
    with path.open("rb") as stream:
        yield UserText(path, blocks_of(stream, path, wanted))


def blocks_of(stream: BinaryIO, name: Path, wanted: str) -> Iterator[str]:
    """Yield a text in blocks; raise :class:`UserError` if it is not text in UTF-8."""
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read, line, block = 0, 1, stream.read(BLOCK)
    for magic, what in MAGIC.items():
        if block.startswith(magic):
            raise UserError(another_format(name, what, wanted))
    while True:
        n_read += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = n_read - len(error.object) + error.start
            line += error.object.count(b"\n", 0, error.start)
            raise UserError(
                f"{name} is not UTF-8 text (byte {place}) in line {line}; save it as UTF-8, or download it again."
            ) from None
        if text:
            yield text
        if not block:
            return
        line += block.count(b"\n")
        block = stream.read(BLOCK)
