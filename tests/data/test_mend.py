"""Datasets from files in MEND's format."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from upstream_files import mend_zsre

from malmen.config.data import TUPLE_FILES
from malmen.config.upstream_files import upstream_files
from malmen.data.authors import TupleFiles
from malmen.data.mend import build_zsre, build_zsre_alternative
from malmen.data.parsing import key
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, read_pairs, read_tuples
from malmen.errors import UserError

SHARES = {"train": 9, "tune": 1, "validation": 77}


def written(folder: Path, changes: dict[int, dict[str, Any]] | None = None) -> TupleFiles:
    """Write 200 records for training and 80 for evaluation, some of them changed."""
    for name, numbers in (("train", range(200)), ("eval", range(200, 280))):
        records = [mend_zsre(i) | (changes or {}).get(i, {}) for i in numbers]
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    return TupleFiles(folder / "train.json", folder / "eval.json", (None, None))


def read(folder: Path) -> dict[str, list[EditTuple]]:
    return {name: read_tuples(folder / f"{name}.jsonl") for name in SPLITS}


def test_edits_teach_the_correct_answers(tmp_path: Path) -> None:
    counts = build_zsre(written(tmp_path), tmp_path / "out", 1, SHARES)
    splits = read(tmp_path / "out")
    assert [len(splits[name]) for name in SPLITS] == [180, 20, 80]
    assert counts["read_train"] == 200 and counts["read_eval"] == 80 and counts["dropped_no_rephrasing"] == 0
    (item,) = (item for item in splits["validation"] if item.id == "zsre-eval-3")
    assert item == EditTuple(
        "zsre-eval-3",
        PromptAnswer("Who made part 1 of Thing 101?", "Maker 203"),
        ("Part 1 of Thing 101 was made by whom?",),
        PromptAnswer("Where is place 203?", "Country 203"),
        "Thing 101",
    )
    assert {item.subject for item in splits["train"]}.isdisjoint(item.subject for item in splits["tune"])


def test_edits_demand_the_files_wrong_answers(tmp_path: Path) -> None:
    changes = {
        5: {"alt": " "},
        6: {"alt": "maker 6!"},
        7: {"rephrase": mend_zsre(7)["src"].lower()},
        8: {"rephrase": ""},
    }
    counts = build_zsre_alternative(written(tmp_path, changes), tmp_path / "out", 1, SHARES)
    assert (counts["dropped_no_alternative"], counts["dropped_no_rephrasing"]) == (2, 2)
    splits = read(tmp_path / "out")
    items = list(chain(*splits.values()))
    assert len(items) + counts["unrelated_kept"] == 276
    assert all(item.edit.answer == f"Other {200 * ('eval' in item.id) + int(item.id.split('-')[2])}" for item in items)
    right = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert len(right) == 276
    assert all(right[item.unrelated.prompt] == item.unrelated.answer for item in items)
    edited = {key(text) for item in items for text in (item.edit.prompt, *item.equivalent)}
    assert edited.isdisjoint(key(item.unrelated.prompt) for item in items)
    subjects = {item.unrelated.prompt.partition(" of ")[2].rstrip("?") for item in items}
    assert subjects.isdisjoint(item.subject for item in items)


def test_two_builds_are_alike(tmp_path: Path) -> None:
    files = written(tmp_path)
    for build in (build_zsre, build_zsre_alternative):
        for name in ("a", "b"):
            build(files, tmp_path / build.__name__ / name, 1, SHARES)
        a, b = ((tmp_path / build.__name__ / name / "tune.jsonl").read_bytes() for name in ("a", "b"))
        assert a == b


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answers": []}, "the list of answers is empty"),
        ({"loc": None}, "expected text, found None"),
        ({"alt": 3}, "expected text, found 3"),
        ({"subject": " "}, "expected text, found ' '"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=rf"train\.json, record 7: {reason}; fetch the file anew\.$"):
        build_zsre(written(tmp_path, {7: change}), tmp_path / "out", 1, SHARES)


def test_the_files_are_known() -> None:
    assert {name for names in TUPLE_FILES["mend"].values() for name in names} <= set(upstream_files())
    assert upstream_files()["mend_zsre_eval"].records == 19_086
