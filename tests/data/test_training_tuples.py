"""Edit tuples made of facts in any format."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import malmen
from malmen.data.training_tuples import read_training_tuples
from malmen.data.tuples import EditTuple, PromptAnswer, tuple_to_json, write_jsonl
from malmen.errors import UserError

POOL = [PromptAnswer(f"Where is {name}?", "Est") for name in ("Cor", "Dov", "Vale")]
MIRROR = Path(os.environ.get("MALMEN_MIRROR", "/nonexistent"))


def record(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Who is {i}?", "answer": f"N{i}", **more}


def carrying(i: int) -> dict[str, Any]:
    return record(i, rephrasings=[f"{i} is who?"], unrelated_prompt=f"Where is {i}?", unrelated_answer="Est")


def test_edit_tuples_of_this_package_stay_as_they_are(tmp_path: Path) -> None:
    edit = PromptAnswer("Who is it?", "Ada")
    items = [EditTuple(str(i), edit, ("It's who?",), POOL[i % 2], "it" if i else None) for i in range(5)]
    write_jsonl(tmp_path / "train.jsonl", map(asdict, items))
    found = read_training_tuples(tmp_path / "train.jsonl", POOL[2:])
    assert found.tuples == items and not (found.drawn or found.without_rephrasings)
    assert malmen.read_tuples(tmp_path / "train.jsonl") == items
    write_jsonl(tmp_path / "train.jsonl", [asdict(items[0]), asdict(items[0])])
    with pytest.raises(UserError, match=r"line 2: the id '0' occurs twice"):
        read_training_tuples(tmp_path / "train.jsonl")


def test_facts_become_tuples_with_their_own_texts_or_drawn_ones(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    write_jsonl(
        path, [carrying(0), record(1, subject="1"), record(2), carrying(0), record(0, rephrasings=["Who's 0?"])]
    )
    found = read_training_tuples(path, POOL, seed=3)
    first, second, third = found.tuples
    assert first.equivalent == ("0 is who?", "Who's 0?") and first.unrelated == PromptAnswer("Where is 0?", "Est")
    assert (second.edit, second.equivalent, second.subject) == (PromptAnswer("Who is 1?", "N1"), ("Who is 1?",), "1")
    assert {second.unrelated, third.unrelated} <= set(POOL)
    assert found.drawn == found.without_rephrasings == {second.id, third.id}
    expected = {"read": 5, "skipped": 0, "joined": 2, "without_rephrasings": 2, "drawn_unrelated": 2, "kept": 3}
    assert found.counts() == expected and found.seed == 3
    assert len({item.id for item in found.tuples}) == 3
    assert read_training_tuples(path, POOL, seed=3).tuples == found.tuples
    draws = {read_training_tuples(path, POOL, seed=seed).tuples[1].unrelated for seed in range(20)}
    assert draws == set(POOL)


def test_the_truth_comes_along(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    first = {"prompt": "Who is 0?", "target_new": "N0"}
    write_jsonl(path, [first, first | {"ground_truth": "T0"}, {"prompt": "Who is 1?", "target_new": "N1"}])
    found = read_training_tuples(path, POOL).tuples
    assert [item.truth for item in found] == ["T0", None]
    write_jsonl(tmp_path / "train.jsonl", map(tuple_to_json, found))
    assert read_training_tuples(tmp_path / "train.jsonl").tuples == found


def test_no_unrelated_prompt_asks_what_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    write_jsonl(path, [record(0, unrelated_prompt="who is 1", unrelated_answer="N1"), record(1)])
    pool = [PromptAnswer("Who is 0", "x"), POOL[0]]
    assert [item.unrelated for item in read_training_tuples(path, pool).tuples] == [POOL[0], POOL[0]]
    with pytest.raises(UserError) as caught:
        read_training_tuples(path, pool[:1])
    _, first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}, line 1: its unrelated prompts are edited by the file, too; add another")
    assert second.startswith(f"{path}, line 2: no unrelated prompt; add another, or name a file of unrelated questions")


def test_facts_without_an_unrelated_prompt_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    write_jsonl(path, [carrying(0), record(1), record(2, answer=3)])
    found = read_training_tuples(path, skip_bad=True)
    assert [item.edit.answer for item in found.tuples] == ["N0"] and found.counts()["skipped"] == 2
    write_jsonl(path, [record(1)])
    with pytest.raises(UserError, match="line 1: no unrelated prompt"):
        read_training_tuples(path, skip_bad=True)


def test_the_api_draws_from_a_file(tmp_path: Path) -> None:
    path, others = tmp_path / "facts.csv", tmp_path / "nq.jsonl"
    path.write_text("prompt,target_new,ground_truth\nWho?,Ada,Bo\n")
    others.write_text(json.dumps({"question": "where is cor", "answer": ["Est"]}))
    (item,) = malmen.read_tuples(path, others, answers="true")
    assert item.edit == PromptAnswer("Who?", "Bo") and item.unrelated == PromptAnswer("Where is cor?", "Est")


@pytest.mark.skipif(not MIRROR.is_dir(), reason="needs the mirror of upstream files (MALMEN_MIRROR)")
def test_the_real_files_become_tuples() -> None:
    (counterfact,) = MIRROR.rglob("counterfact-train.json")
    found = read_training_tuples(counterfact, POOL, skip_bad=True)
    counts = found.counts()
    assert counts["kept"] + counts["joined"] + counts["skipped"] == counts["read"] == 10_000
    assert counts["kept"] > 9000
    asked = {prompt for item in found.tuples for prompt in (item.edit.prompt, *item.equivalent)}
    assert asked.isdisjoint(item.unrelated.prompt for item in found.tuples)
