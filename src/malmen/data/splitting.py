"""The rule that splits edit tuples: by a hash, and never through a subject or a question."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from malmen.data.parsing import key
from malmen.data.tuples import SPLITS, EditTuple

T = TypeVar("T")
Topic = tuple[str, str]
"""What a tuple is about: a kind ("subject" or "question") and a text in its :func:`key` form."""


def topics(item: EditTuple) -> list[Topic]:
    """Return what an edit is about: its question and, where it is known, its subject."""
    found = [("question", key(item.edit.prompt))]
    return found if item.subject is None else [*found, ("subject", key(item.subject))]


def split_tuples(
    tuples: Sequence[EditTuple],
    shares: dict[str, int],
    seed: int,
    topics_of: Callable[[EditTuple], Iterable[Topic]] = topics,
) -> dict[str, list[EditTuple]]:
    """Divide tuples into :data:`SPLITS` in proportion to ``shares``, by a hash of seed and subject or id.

    The hash makes the split independent of the order of the source and of Python's version. Tuples that share a topic,
    directly or through others, stay together, so that no editor is trained on what is reported.

    Args:
        tuples: Edit tuples, each with an id of its own.
        shares: Relative sizes of the splits, by name.
        seed: Determines the split, and the order of tuples in it.
        topics_of: Returns the topics of a tuple, at least one.

    Raises:
        ValueError: if ``shares`` does not name exactly the splits.
    """
    if set(shares) != set(SPLITS):
        raise ValueError(f"shares must name {SPLITS}, not {tuple(shares)}")

    def place(family: list[EditTuple]) -> bytes:
        return draw(seed, min(item.subject or item.id for item in family))

    order = sorted(families(tuples, topics_of), key=place, reverse=True)
    splits: dict[str, list[EditTuple]] = {name: [] for name in SPLITS}
    end = 0.0
    for name in SPLITS:
        end += len(tuples) * shares[name] / sum(shares.values())
        while order and sum(map(len, splits.values())) + len(order[-1]) / 2 <= end:
            splits[name] += order.pop()
    # Families are scattered within a split, so that no group of edits is full of one subject.
    return {name: sorted(split, key=lambda item: draw(seed, item.id)) for name, split in splits.items()}


def families(items: Sequence[T], topics_of: Callable[[T], Iterable[Hashable]]) -> list[list[T]]:
    """Group items that share a topic, directly or through others, in order of first occurrence.

    Args:
        items: The items.
        topics_of: Returns the topics of an item, at least one.
    """
    above: dict[Hashable, Hashable] = {}

    def root(topic: Hashable) -> Hashable:
        while (parent := above.setdefault(topic, topic)) != topic:
            above[topic] = above[parent]
            topic = parent
        return topic

    firsts = []
    for item in items:
        first, *others = topics_of(item)
        firsts.append(first)
        for other in others:
            above[root(other)] = root(first)
    groups: dict[Hashable, list[T]] = {}
    for item, first in zip(items, firsts, strict=True):
        groups.setdefault(root(first), []).append(item)
    return list(groups.values())


def draw(seed: int, name: str) -> bytes:
    """Return pseudo-random bytes that depend only on seed and name."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
