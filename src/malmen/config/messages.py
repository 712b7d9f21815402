"""Sentences about mistakes in a configuration, from pydantic's errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from malmen.config.base import WRONG_KIND
from malmen.runtime.text import either, short_repr

MAPPING = "must be a mapping of keys to values"
TYPES = {
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "dataclass_type": MAPPING,
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
"""What a value of the wrong type must be, by pydantic's name for the error."""

Place = tuple[str | int, ...]
"""The keys that lead to a value."""

ABSENT = object()


def sentences(error: ValidationError, data: Any, schema: Mapping[str, Any], written: Any = None) -> Iterator[str]:
    """Yield a sentence without full stop for each mistake: which key, its value, and what is allowed.

    Args:
        error: pydantic's.
        data: what was checked.
        schema: the JSON schema of what it should be.
        written: what the file says, if ``data`` has more than that: a mistake that editors inherit is named once.
    """
    found: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors():
        found.setdefault(place_of(details, data), []).append(details)
    alike: dict[str, list[Place]] = {}
    for place, several in found.items():
        alike.setdefault(inheritable(place, several), []).append(place)
    for places in alike.values():
        for place in [place for place in places if value_at(place, written) is not ABSENT] or places[:1]:
            yield from dict.fromkeys(explain(place, found[place], schema))


def inheritable(place: Place, several: Sequence[ErrorDetails]) -> str:
    """Return a text that is the same for a mistake in an editor and in those that inherit it."""
    start = 2 if place[:1] == ("editors",) else 4 if place[:1] == ("models",) and place[2:3] == ("editors",) else 0
    missing = any(details["type"] in ("missing", "missing_argument", WRONG_KIND) for details in several)
    tail = place[start - 1 :] if missing and start else place[start:]
    whats = [(d["msg"], None if isinstance(d["input"], Mapping) else short_repr(d["input"])) for d in several]
    return repr((tail, whats))


def value_at(place: Place, data: Any) -> Any:
    """Return what data hold at a place; :data:`ABSENT` if they have no such keys."""
    try:
        for part in place:
            data = data[part]
    except (KeyError, IndexError, TypeError):
        return ABSENT
    return data


def place_of(details: ErrorDetails, data: Any) -> Place:
    """Return the keys that lead to an error, without pydantic's names for members of a union."""
    place: list[str | int] = []
    for part in details["loc"]:
        if not isinstance(data, Mapping | Sequence) or isinstance(data, str):
            break  # a type that the value could have had
        # Unions tag their members with the names of classes; other members are named like types.
        if part == "[key]" or (isinstance(part, str) and (part[:1].isupper() or "[" in part)):
            continue
        place.append(part)
        data = value_at((part,), data)
    return tuple(place)


def explain(place: Place, several: Sequence[ErrorDetails], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences about the errors at one place; a union of types has one error for each of them."""
    key = ".".join(map(str, place))
    reasons: list[str] = []
    for details in several:
        if details["type"] == WRONG_KIND:
            yield wrong_kind(key, details)
        elif details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield f"{key} is not a known key; known are {', '.join(known_keys(details['loc'][:-1], schema))}"
        elif details["type"] in ("missing", "missing_argument"):
            yield f"{key} is missing; set it"
        else:
            reason = details["msg"].removeprefix("Value error, ").partition(" after validation")[0]
            reason = re.sub(r"^\w+ should ", "must ", reason.partition(", unable to parse")[0])
            reasons.append(TYPES.get(details["type"], reason))
    must, *others = [reason for reason in dict.fromkeys(reasons) if reason.startswith("must ")] or [""]
    if must:
        allowed = either([must, *(other.removeprefix("must be ") for other in others)])
        yield f"{key or 'it'} is {short_repr(several[0]['input'])} but {allowed}"
    yield from (f"{key}: {reason}" if key else reason for reason in reasons if not reason.startswith("must "))


def wrong_kind(key: str, details: ErrorDetails) -> str:
    """Return a sentence about a section whose key chooses among several sections, but does not."""
    value, context = details["input"], details["ctx"]
    if not isinstance(value, Mapping):
        return f"{key} is {short_repr(value)} but {MAPPING}"
    allowed = either(context["allowed"].split(", "))
    chosen = context["key"]
    if chosen not in value:
        return f"{key}.{chosen} is missing; set it to {allowed}"
    return f"{key}.{chosen} is {short_repr(value[chosen])} but must be {allowed}"


def known_keys(place: Sequence[str | int], schema: Mapping[str, Any]) -> list[str]:
    """Return the keys that the schema allows at a place, as pydantic names it, of what it describes."""
    node = schema
    for part in place:
        if part in schema["$defs"]:
            node = schema["$defs"][part]
            continue
        inner = [*node.get("patternProperties", {}).values(), node.get("items"), node.get("properties", {}).get(part)]
        found = next(filter(None, inner))
        refs = [option["$ref"] for option in (found, *found.get("anyOf", ())) if "$ref" in option]
        node = schema["$defs"][refs[0].rpartition("/")[2]] if refs else found
    return list(node["properties"])
