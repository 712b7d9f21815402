"""Reading records that users write, with all that is wrong in one report."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from malmen.data.json_values import Value, read_values
from malmen.data.user_text import named
from malmen.errors import UserError
from malmen.runtime.problems import refuse_all
from malmen.runtime.text import counted, first_few, short_repr

T = TypeVar("T")
Record = Mapping[str, Any]

logger = logging.getLogger("malmen")

OTHER_NAMES = {
    "prompt": ("src", "question", "query", "input", "text", "claim"),
    "answer": ("target_new", "alt", "target", "new_answer", "output", "completion", "label"),
    "rephrasings": ("rephrase_prompt", "rephrase", "paraphrases", "paraphrase_prompts"),
}
"""What other tools call a field."""
UNDECIDED = 100
"""How many records of no format are looked at before the file counts as one of the likeliest format."""


@dataclass(frozen=True)
class Fields:
    """The fields of a record.

    Attributes:
        needed: those that every record has.
        optional: those that a record may have.
        example: a record.
        unused: those that a record may have and that nothing is made of.
        by_hand: whether people write such records, so that a field may be misspelt.
        remedies: by needed field, what to do where it is missing and another one is there.
    """

    needed: Sequence[str]
    optional: Sequence[str]
    example: str
    unused: Sequence[str] = ()
    by_hand: bool = True
    remedies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def known(self) -> tuple[str, ...]:
        """All fields of which something is made."""
        return (*self.needed, *self.optional)

    @property
    def wanted(self) -> str:
        """What a file should contain."""
        return f"one JSON object on each line, or one JSON list of objects, such as {self.example}"

    def misspelt(self, record: Record) -> dict[str, str]:
        """Return the fields of a record that are misspelt, each with the field that is meant."""
        if not self.by_hand:
            return {}
        absent = [name for name in self.known if name not in record]
        return {
            key: name
            for key in record
            if key not in self.known and key not in self.unused
            for name in absent
            if is_misspelling(key, name)
        }

    def hint(self, record: Record, name: str) -> str:
        """Return which field of a record may be the missing one, in parentheses; an empty text if none may."""
        for other, remedy in self.remedies.get(name, {}).items():
            if other in record:
                return f" ({remedy})"
        others = [other for other in OTHER_NAMES.get(name, ()) if other in record and other not in self.known]
        return f" (rename {others[0]!r} to {name!r} if that is what it holds)" if others else ""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of records.

    Attributes:
        name: what reports call it.
        fields: the fields of a record.
        build: makes an item of a record and its place, such as "line 3"; raises ``KeyError``, ``TypeError`` or
            ``ValueError`` if the record is malformed.
        marked: returns whether a record is of this kind, and of no other.
    """

    name: str
    fields: Fields
    build: Callable[[Record, str], T]
    marked: Callable[[Record], bool] = lambda _: True


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read from a file.

    Attributes:
        items: what was made of the sound records.
        problems: a sentence for each of the others.
        checked: the file, and how many records it has.
        kind: the kind of the records.
        n: their number.
    """

    items: list[T]
    problems: list[str]
    checked: str
    kind: Kind[T]
    n: int

    def sound(self) -> list[T]:
        """Return the items; raise :class:`UserError` with all problems if there are any."""
        refuse_all(self.problems, self.checked)
        return self.items


def read_records(path: Path, kinds: Sequence[Kind[T]], remedy: str = "correct it", wanted: str = "") -> Reading[T]:
    """Read the records in a file, all of one kind, which they show themselves.

    One record after the other is read and made an item; the whole text is never in memory. Fields that are not known
    are named in a warning and ignored, unless they are known ones misspelt.

    Args:
        path: the file; ``-`` is standard input.
        kinds: the kinds of records that are looked for; those of no kind count as of the first one, or as of the one
            whose fields they have most of.
        remedy: what to do about a malformed record.
        wanted: what the file should contain, for messages. Default: records of the first kind.

    Raises:
        UserError: if there is no such file, it has another format, its records have other fields, or are of two kinds.
    """
    records = Records(named(path), kinds, remedy, wanted or kinds[0].fields.wanted)
    for value in read_values(path, records.wanted, columns_of(kinds)):
        records.add(value)
    return records.read()


def columns_of(kinds: Sequence[Kind[Any]]) -> set[str]:
    """Return the columns by which a table is recognised that holds records of some kinds."""
    return {name for kind in kinds for name in (*kind.fields.known, *kind.fields.unused)}


class Records(Generic[T]):
    """The records of a file, as far as they are read."""

    def __init__(self, path: Path, kinds: Sequence[Kind[T]], remedy: str, wanted: str) -> None:
        self.path = path
        self.kinds = kinds
        self.remedy = remedy
        self.wanted = wanted
        self.kind: Kind[T] | None = None
        self.shown_by = ""
        self.undecided: list[Value] = []
        self.items: list[T] = []
        self.problems: list[str] = []
        self.misspelt: dict[tuple[str, str], tuple[str, int]] = {}
        self.found: dict[str, int] = {}
        self.absent: dict[str, int] = {}
        self.first: Record = {}
        self.n_values = self.n_records = 0

    def add(self, value: Value) -> None:
        """Take the next value of the file."""
        self.n_values += 1
        marked = next((kind for kind in self.kinds if is_record(value) and kind.marked(value.content)), None)
        if self.kind is None:
            self.undecided.append(value)
            if marked is not None or len(self.undecided) == UNDECIDED:
                self.decide(marked, value.where)
            return
        if marked is not None and marked is not self.kind:
            raise UserError(
                f"{self.path} mixes two formats: {self.shown_by or 'what comes first'} is {self.kind.name}, but "
                f"{value.where} is {marked.name}; put each into a file of its own."
            )
        self.take(value, self.kind)

    def decide(self, kind: Kind[T] | None, where: str = "") -> Kind[T]:
        """Settle the kind of the file's records, which one of them shows, and take those that were read before."""
        records = [value.content for value in self.undecided if is_record(value)]
        likeliest = max(self.kinds, key=lambda kind: sum(len(record.keys() & kind.fields.known) for record in records))
        self.kind, self.shown_by = kind or likeliest, where if kind else ""
        for value in self.undecided:
            self.take(value, self.kind)
        self.undecided = []
        return self.kind

    def take(self, value: Value, kind: Kind[T]) -> None:
        """Make an item of a value, or note what is wrong with it."""
        misspelt = {}
        if is_record(value):
            misspelt = kind.fields.misspelt(value.content)
            self.note_fields(value.content, kind.fields, misspelt)
        for pair in misspelt.items():
            where, more = self.misspelt.get(pair, (value.where, -1))
            self.misspelt[pair] = where, more + 1
        try:
            check(value, kind.fields, misspelt)
            if not misspelt:
                self.items.append(kind.build(value.content, value.where))
        except (KeyError, TypeError, ValueError) as error:
            self.problems.append(f"{self.path}, {value.where}: {reason_of(error)}; {self.remedy}.")

    def note_fields(self, record: Record, fields: Fields, misspelt: Mapping[str, str]) -> None:
        """Count the fields that a record has, and those that it lacks."""
        self.first = self.first or record
        self.n_records += 1
        for key in record:
            if key not in misspelt:
                self.found[key] = self.found.get(key, 0) + 1
        for name in fields.needed:
            if name not in record and name not in misspelt.values():
                self.absent[name] = self.absent.get(name, 0) + 1

    def read(self) -> Reading[T]:
        """Return what was read, after the last value."""
        kind = self.kind or self.decide(None)
        self.refuse_other_fields(kind.fields)
        self.warn_of_ignored(kind.fields)
        problems = [*self.misspellings(), *self.problems]
        return Reading(self.items, problems, f"{counted(self.n_values, 'record')} of {self.path}", kind, self.n_values)

    def refuse_other_fields(self, fields: Fields) -> None:
        """Raise :class:`UserError` if a field that is needed is missing in all of several records."""
        for name in fields.needed:
            everywhere = self.found and self.absent.get(name, 0) == self.n_records
            if everywhere and (self.n_records > 1 or not set(self.found) & set(fields.known)):
                raise UserError(
                    f"{self.path}: no record has the field {name!r}{fields.hint(self.first, name)}, only "
                    f"{first_few([short_repr(key) for key in self.found], 8)}; the file must contain {self.wanted}."
                )

    def warn_of_ignored(self, fields: Fields) -> None:
        """Name the fields of records that are neither known nor misspelt."""
        known = (*fields.known, *fields.unused)
        if ignored := [short_repr(key) for key in self.found if key not in known]:
            hints = [fields.hint(self.found, name) for name in fields.optional if name not in self.found]
            logger.warning(
                "%s: ignored %s (known: %s)%s.",
                self.path,
                first_few(ignored, 8),
                ", ".join(fields.known),
                "".join(hints),
            )

    def misspellings(self) -> list[str]:
        """Return a sentence for each misspelt field."""
        return [
            f"{self.path}, {where}: unknown field {key!r}{f' (and in {more:,} more)' if more else ''}; rename it to "
            f"{name!r}."
            for (key, name), (where, more) in self.misspelt.items()
        ]


def is_record(value: Value) -> bool:
    """Return whether a value is an object that could be read."""
    return isinstance(value.content, dict) and not value.wrong


def check(value: Value, fields: Fields, misspelt: Mapping[str, str]) -> None:
    """Raise ``ValueError`` if a value is not a record with all fields that are needed."""
    if value.wrong:
        raise ValueError(value.wrong)
    if not isinstance(value.content, dict):
        raise ValueError(f"expected a JSON object, found {type(value.content).__name__}")
    if absent := [name for name in fields.needed if name not in value.content and name not in misspelt.values()]:
        raise ValueError(f"field {absent[0]!r} is missing{fields.hint(value.content, absent[0])}")


def reason_of(error: Exception) -> str:
    """Say what is wrong with a record, from the error that using it raised."""
    if isinstance(error, AttributeError):
        return f"a field has a wrong type ({error})"
    return f"field {error} is missing" if isinstance(error, KeyError) else str(error)


@cache
def is_misspelling(key: str, name: str) -> bool:
    """Return whether a key of a record may be a field's name misspelt."""
    plain = re.sub(r"[^a-z]", "", key.casefold())
    if plain == name:
        return True
    alike = SequenceMatcher(None, plain, name).ratio() >= 0.73
    return alike and plain[:1] == name[0] and not key.startswith(f"{name}_")
