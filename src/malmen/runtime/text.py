"""Numbers, lists and values in messages."""

import re
from collections.abc import Iterable, Sequence
from typing import Any


def counted(number: float, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 link", "2 links", "0.5 hours"; ``many`` is the plural if it is irregular."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def first_few(names: Sequence[str], few: int = 3, separator: str = ", ") -> str:
    """Return the first names and the number of the others: "a, b, c and 41 more"."""
    left = len(names) - few
    return separator.join(names[:few]) + (f" and {left:,} more" if left > 0 else "")


def either(choices: Sequence[str]) -> str:
    """Return choices as text: "a, b or c"."""
    return " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)


def joined(values: Iterable[int]) -> str:
    """Return numbers joined by hyphens, as file names hold them: "4-16"."""
    return "-".join(map(str, values))


def numbers(text: str) -> list[int]:
    """Return the numbers that :func:`joined` joined."""
    return [int(number) for number in text.split("-")]


def short_repr(value: Any) -> str:
    """Return a value as Python writes it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def printed_name(name: str) -> str:
    """Return how a figure, a table or a rule is printed: "figure5" as "Figure 5", "train_editor" as "Train editor"."""
    return re.sub(r"(?<=[a-z])(?=\d)", " ", name).replace("_", " ").capitalize()
