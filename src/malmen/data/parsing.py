"""Shared by the parsers of upstream files: comparing text, and naming malformed records."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from malmen.data.tuples import is_text
from malmen.data.user_files import reason_of
from malmen.errors import UserError

T = TypeVar("T")


def key(text: str) -> str:
    """Return a form of a text that ignores case, punctuation and spacing; a text of symbols stays as it is."""
    return "".join(character for character in text.lower() if character.isalnum()) or text


def tidy(text: object) -> str:
    """Return text on one line with single spaces; raise ``TypeError`` or ``ValueError`` if it is not text or blank."""
    if not isinstance(text, str):
        raise TypeError(f"expected text, found {text!r}")
    if not is_text(text):
        raise ValueError(f"expected text, found {text!r}")
    return " ".join(text.split())


def perhaps_empty(text: Any) -> str:
    """Return text on one line with single spaces, perhaps empty; raise ``TypeError`` if it is not text."""
    return tidy(text) if text != "" and not str(text).isspace() else ""


def read_json_list(path: Path) -> list[Any]:
    """Read a file that holds one JSON list; a missing or malformed file is a :class:`UserError` naming it."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); download the file again.") from None
    if not isinstance(records, list):
        raise UserError(f"{path}: expected a list of records, found {type(records).__name__}; download the file again.")
    return records


@contextmanager
def reading(path: Path, place: str, remedy: str = "download the file again") -> Iterator[None]:
    """Turn an error in a record into a :class:`UserError` that names the file and the record's ``place``."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}, {place}: {reason_of(error)}; {remedy}.") from None


def different(prompt: str, texts: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct texts that differ from a prompt and from each other by more than case and punctuation."""
    return tuple({key(text): text for text in texts if key(text) != key(prompt)}.values())


def group_by_text(
    items: Iterable[T], text: Callable[[T], str], answer: Callable[[T], str]
) -> tuple[list[list[T]], int]:
    """Group items whose texts have the same :func:`key`, in order of first occurrence.

    Returns:
        The groups whose members agree on the answer, and the number of items in all other groups.
    """
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(text(item)), []).append(item)
    agreeing = [group for group in groups.values() if len({key(answer(item)) for item in group}) == 1]
    return agreeing, sum(map(len, groups.values())) - sum(map(len, agreeing))
