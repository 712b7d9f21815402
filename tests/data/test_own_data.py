"""The data set of a user's own files."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from malmen.config.data import OwnFiles
from malmen.data.own_data import build_own
from malmen.data.parsing import key
from malmen.data.tuples import SPLITS, EditTuple, read_documents, read_pairs, read_tuples, write_jsonl
from malmen.errors import UserError

SHARES = {"train": 6, "tune": 1, "validation": 3}
Record = dict[str, Any]


def flat(i: int) -> Record:
    """A record of EasyEdit; three are about one subject."""
    return {
        "prompt": f"Who made part {i} of Thing {i // 3}?",
        "target_new": f"Maker  {i}",
        "ground_truth": f"Other {i}",
        "subject": f"Thing {i // 3}",
        "rephrase_prompt": f"A rose.\n\nWho made {i}?",
        "locality_prompt": f"Where is place {i % 40}?",
        "locality_ground_truth": f"Country {i % 40}",
    }


def bare(i: int) -> Record:
    return {"prompt": f"Who made {i}?", "answer": f"Maker {i}"}


def build(folder: Path, files: OwnFiles, shared: Any = "keep") -> tuple[dict[str, list[EditTuple]], Any]:
    counts = build_own(files, folder / "out", SHARES, 0, shared)
    assert json.loads((folder / "out" / "counts.json").read_text()) == counts
    return {name: read_tuples(folder / "out" / f"{name}.jsonl") for name in SPLITS}, counts


def test_facts_that_carry_all_become_a_data_set(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "facts.jsonl", map(flat, range(90)))
    files = OwnFiles(facts=str(tmp_path / "facts.jsonl"))
    splits, counts = build(tmp_path, files)
    assert [len(items) for items in splits.values()] == pytest.approx([54, 9, 27], abs=3)
    subjects = [{item.subject for item in items} for items in splits.values()]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 30
    items = list(chain(*splits.values()))
    assert {item.edit.answer for item in items} == {f"Maker {i}" for i in range(90)}
    assert all(item.equivalent[0].startswith("A rose. Who made ") for item in items)
    assert counts["format"] == "EasyEdit and KnowEdit" and counts["answer"] == "target_new"
    assert (counts["facts_read"], counts["facts_kept"], counts["facts_drawn_unrelated"]) == (90, 90, 0)
    assert counts["unrelated_shared_train"] > 0 == counts["unrelated_replaced"]
    assert set(read_pairs(tmp_path / "out" / "finetune.jsonl")) == {item.unrelated for item in items}
    known, asked = read_documents(tmp_path / "out" / "text.txt")
    assert len(known) == len(splits["train"]) and set(asked) >= {item.edit.prompt for item in splits["train"]}
    parted, counts = build(tmp_path, files, "replace")
    reported = {item.unrelated for item in parted["validation"]}
    assert reported.isdisjoint(item.unrelated for item in [*parted["train"], *parted["tune"]])
    assert counts["unrelated_replaced"] > 0


def test_unrelated_questions_of_a_file_are_divided_like_the_facts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "facts.jsonl", [*map(bare, range(60)), bare(3) | {"answer": "Bo"}])
    questions = [{"question": f"where is place {i}", "answer": [f"Country {i}"]} for i in range(30)]
    write_jsonl(tmp_path / "nq.jsonl", questions)
    files = OwnFiles(facts=str(tmp_path / "facts.jsonl"), unrelated=str(tmp_path / "nq.jsonl"), skip_bad=True)
    splits, counts = build(tmp_path, files)
    used = [{key(item.unrelated.prompt) for item in items} for items in splits.values()]
    assert sum(map(len, used)) == len(set.union(*used)) <= 30
    assert all(item.unrelated.prompt.startswith("Where is place") for item in chain(*splits.values()))
    assert (counts["facts_skipped"], counts["facts_without_rephrasings"], counts["facts_drawn_unrelated"]) == (
        1,
        60,
        60,
    )
    assert (counts["unrelated_format"], counts["unrelated_kept"]) == ("NQ-open", 30)
    with pytest.raises(UserError, match=r"facts\.jsonl, line 61: the prompt 'Who made 3\?' has the answer 'Bo' here"):
        build(tmp_path, OwnFiles(facts=files.facts, unrelated=files.unrelated))


def test_questions_that_overlap_in_a_rephrasing_stay_together(tmp_path: Path) -> None:
    records = [flat(3 * i) | {"rephrase_prompt": f"Who made {i // 10}?"} for i in range(60)]
    write_jsonl(tmp_path / "facts.jsonl", records)
    splits, _ = build(tmp_path, OwnFiles(facts=str(tmp_path / "facts.jsonl")))
    forms = [{item.equivalent for item in items} for items in splits.values()]
    assert sum(map(len, forms)) == len(set.union(*forms)) == 6


def test_facts_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "facts.jsonl", [flat(i) | {"subject": "Thing"} for i in range(30)])
    with pytest.raises(UserError, match=r"The 30 facts of .*facts\.jsonl leave none for the (train|validation) split"):
        build(tmp_path, OwnFiles(facts=str(tmp_path / "facts.jsonl")))


def test_facts_without_any_unrelated_question_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "facts.jsonl", map(bare, range(3)))
    with pytest.raises(UserError, match=r"3 problems in 3 records of .*\n.*line 1: no unrelated prompt"):
        build(tmp_path, OwnFiles(facts=str(tmp_path / "facts.jsonl")))
