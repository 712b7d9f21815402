"""Splitting edit tuples."""

import random
from itertools import pairwise

import pytest

from malmen.data.splitting import Topic, families, split_tuples, topics
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer

SHARES = {"train": 8, "tune": 1, "validation": 1}


def edit_tuple(i: int, subject: str | None = None, prompt: str | None = None) -> EditTuple:
    edit = PromptAnswer(prompt or f"Who is {i}?", f"N{i}")
    return EditTuple(str(i), edit, (f"Who's {i}?",), PromptAnswer("Where?", "There"), subject)


def ids(splits: dict[str, list[EditTuple]]) -> dict[str, list[str]]:
    return {name: [item.id for item in split] for name, split in splits.items()}


def test_splits_hold_everything_once_in_the_given_shares() -> None:
    tuples = [edit_tuple(i) for i in range(1000)]
    splits = split_tuples(tuples, SHARES, seed=0)
    assert list(splits) == list(SPLITS)
    assert {name: len(split) for name, split in splits.items()} == {"train": 800, "tune": 100, "validation": 100}
    assert sorted(item.id for split in splits.values() for item in split) == sorted(item.id for item in tuples)


def test_subjects_stay_together_but_are_scattered_within_a_split() -> None:
    tuples = [edit_tuple(i, f"subject {i // 5}") for i in range(1000)]
    splits = split_tuples(tuples, SHARES, seed=0)
    subjects = [{item.subject for item in splits[name]} for name in SPLITS]
    assert not subjects[0] & subjects[1] and not subjects[0] & subjects[2] and not subjects[1] & subjects[2]
    assert [len(splits[name]) for name in SPLITS] == pytest.approx([800, 100, 100], abs=5)
    train = [item.subject for item in splits["train"]]
    assert sum(a == b for a, b in pairwise(train)) < 20


def test_a_split_depends_on_seed_and_ids_not_on_the_order() -> None:
    tuples = [edit_tuple(i, f"subject {i // 3}") for i in range(300)]
    shuffled = random.Random(1).sample(tuples, len(tuples))
    first = ids(split_tuples(tuples, SHARES, seed=0))
    assert ids(split_tuples(shuffled, SHARES, seed=0)) == first
    assert ids(split_tuples(tuples, SHARES, seed=1)) != first


def test_a_split_is_the_same_on_every_machine() -> None:
    splits = split_tuples([edit_tuple(i) for i in range(8)], {"train": 2, "tune": 1, "validation": 1}, seed=0)
    assert ids(splits) == {"train": ["4", "0", "6", "7"], "tune": ["2", "1"], "validation": ["5", "3"]}


@pytest.mark.parametrize("shares", [{"train": 1}, {**SHARES, "test": 1}])
def test_shares_of_other_splits_are_refused(shares: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="shares must name"):
        split_tuples([edit_tuple(1)], shares, seed=0)


def test_tuples_that_share_a_subject_or_a_question_are_one_family() -> None:
    tuples = [
        edit_tuple(0, "Ada Lund"),
        edit_tuple(1, "Bram"),
        edit_tuple(2, "ada  lund!"),
        edit_tuple(3, None, "Who made it?"),
        edit_tuple(4, "Bram", "who made it"),
        edit_tuple(5),
        edit_tuple(6, "Who is 5?"),  # a subject is no question
    ]
    found = [[item.id for item in family] for family in families(tuples, topics)]
    assert found == [["0", "2"], ["1", "3", "4"], ["5"], ["6"]]


@pytest.mark.parametrize("seed", range(20))
def test_families_are_the_connected_components(seed: int) -> None:
    rng = random.Random(seed)
    items = [(i, frozenset(rng.sample(range(60), rng.randint(1, 3)))) for i in range(40)]
    found = families(items, lambda item: sorted(item[1]))
    assert sorted(i for family in found for i, _ in family) == list(range(40))
    covered = [frozenset[int]().union(*(topics for _, topics in family)) for family in found]
    for n, one in enumerate(covered):
        assert all(one.isdisjoint(other) for other in covered[n + 1 :])
    for family in found:
        reached, rest = set(family[0][1]), dict(family[1:])
        while near := [i for i, topics in rest.items() if topics & reached]:
            reached |= rest.pop(near[0])
        assert not rest


def test_other_topics_can_keep_tuples_together() -> None:
    tuples = [edit_tuple(i) for i in range(100)]

    def by_tens(item: EditTuple) -> list[Topic]:
        return [("question", str(int(item.id) // 10))]

    splits = split_tuples(tuples, {"train": 5, "tune": 2, "validation": 3}, 0, by_tens)
    tens = [{int(item.id) // 10 for item in splits[name]} for name in SPLITS]
    assert [len(found) for found in tens] == [5, 2, 3] and len(set.union(*tens)) == 10
