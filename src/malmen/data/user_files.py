"""Reading records that users write, with all that is wrong in one report."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from malmen.data.json_values import Value, read_values
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


@dataclass(frozen=True)
class Fields:
    """The fields of a record.

    Attributes:
        needed: those that every record has.
        optional: those that a record may have.
        example: a record.
    """

    needed: Sequence[str]
    optional: Sequence[str]
    example: str

    @property
    def known(self) -> tuple[str, ...]:
        """All fields."""
        return (*self.needed, *self.optional)

    @property
    def wanted(self) -> str:
        """What a file should contain."""
        return f"one JSON object on each line, or one JSON list of objects, such as {self.example}"

    def misspelt(self, record: Record) -> dict[str, str]:
        """Return the fields of a record that are misspelt, each with the field that is meant."""
        absent = [name for name in self.known if name not in record]
        return {key: name for key in record if key not in self.known for name in absent if is_misspelling(key, name)}


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read from a file.

    Attributes:
        items: what was made of the sound records.
        problems: a sentence for each of the others.
        checked: the file, and how many records it has.
    """

    items: list[T]
    problems: list[str]
    checked: str

    def sound(self) -> list[T]:
        """Return the items; raise :class:`UserError` with all problems if there are any."""
        refuse_all(self.problems, self.checked)
        return self.items


def read_records(
    path: Path, fields: Fields, build: Callable[[Record, str], T], remedy: str = "correct it"
) -> Reading[T]:
    """Read JSON lines, or a JSON list, of objects.

    Fields that are not known are named in a warning and ignored, unless they are known ones misspelt.

    Args:
        path: the file.
        fields: the fields of a record.
        build: makes an item of a record and its place, such as "line 3"; raises ``KeyError``, ``TypeError`` or
            ``ValueError`` if the record is malformed.
        remedy: what to do about a malformed record.

    Raises:
        UserError: if there is no such file, it has another format, or its records have other fields.
    """
    values = read_values(path, fields.wanted)
    records = [value.content for value in values if isinstance(value.content, dict)]
    refuse_other_fields(path, records, fields)
    warn_of_ignored(path, records, fields)
    items, problems = [], misspellings(path, values, fields)
    for value in values:
        try:
            check(value, fields)
            if not fields.misspelt(value.content):
                items.append(build(value.content, value.where))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path}, {value.where}: {reason_of(error)}; {remedy}.")
    return Reading(items, problems, f"{counted(len(values), 'record')} of {path}")


def reason_of(error: Exception) -> str:
    """Say what is wrong with a record, from the error that using it raised."""
    if isinstance(error, AttributeError):
        return f"a field has a wrong type ({error})"
    return f"field {error} is missing" if isinstance(error, KeyError) else str(error)


def check(value: Value, fields: Fields) -> None:
    """Raise ``ValueError`` if a value is not a record with all fields that are needed."""
    if value.wrong:
        raise ValueError(value.wrong)
    if not isinstance(value.content, dict):
        raise ValueError(f"expected a JSON object, found {type(value.content).__name__}")
    misspelt = fields.misspelt(value.content).values()
    if absent := [name for name in fields.needed if name not in value.content and name not in misspelt]:
        raise ValueError(f"field {absent[0]!r} is missing{hint(value.content, absent[0])}")


def refuse_other_fields(path: Path, records: Sequence[Record], fields: Fields) -> None:
    """Raise :class:`UserError` if a field that is needed is missing in all of several records."""
    found = list(dict.fromkeys(key for record in records for key in record))
    for name in fields.needed:
        everywhere = found and all(
            name not in record and name not in fields.misspelt(record).values() for record in records
        )
        if everywhere and (len(records) > 1 or not set(found) & set(fields.known)):
            raise UserError(
                f"{path}: no record has the field {name!r}{hint(records[0], name)}, only "
                f"{first_few([short_repr(key) for key in found], 8)}; the file must contain {fields.wanted}."
            )


def hint(record: Record, name: str) -> str:
    """Return which field of a record may be the missing one, in parentheses; an empty text if none may."""
    others = [other for other in OTHER_NAMES.get(name, ()) if other in record]
    return f" (rename {others[0]!r} to {name!r} if that is what it holds)" if others else ""


def warn_of_ignored(path: Path, records: Sequence[Record], fields: Fields) -> None:
    """Name the fields of records that are neither known nor misspelt."""
    found = {key: None for record in records for key in record if key not in fields.misspelt(record)}
    if ignored := [short_repr(key) for key in found if key not in fields.known]:
        hints = [hint(found, name) for name in fields.optional if name not in found]
        known = ", ".join(fields.known)
        logger.warning("%s: ignored %s (known: %s)%s.", path, first_few(ignored, 8), known, "".join(hints))


def misspellings(path: Path, values: Sequence[Value], fields: Fields) -> list[str]:
    """Return a sentence for each misspelt field."""
    places: dict[tuple[str, str], list[str]] = {}
    for value in values:
        if isinstance(value.content, dict):
            for pair in fields.misspelt(value.content).items():
                places.setdefault(pair, []).append(value.where)
    return [
        f"{path}, {where[0]}: unknown field {key!r}{f' (and in {len(where) - 1:,} more)' if where[1:] else ''}; rename "
        f"it to {name!r}."
        for (key, name), where in places.items()
    ]


@cache
def is_misspelling(key: str, name: str) -> bool:
    """Return whether a key of a record may be a field's name misspelt."""
    plain = re.sub(r"[^a-z]", "", key.casefold())
    if plain == name:
        return True
    alike = SequenceMatcher(None, plain, name).ratio() >= 0.73
    return alike and plain[:1] == name[0] and not key.startswith(f"{name}_")
