"""zsRE questions in KnowEdit's and in MEND's format: parsing, selection, and the edits made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.data.zsre import Question, edit_tuple, read_questions, select
from malmen.errors import UserError


def record(**changes: Any) -> dict[str, Any]:
    return {
        "subject": "Louise Grandjean",
        "prompt": "What voice type is Louise Grandjean?",
        "rephrase_prompt": "What tone does Louise Grandjean sing in?",
        "ground_truth": ["soprano", "high"],
        "target_new": "mezzo soprano",
    } | changes


def read(folder: Path, *records: Any) -> list[Question]:
    path = folder / "zsre.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return read_questions(path)


def test_an_edit_demands_the_correct_answer(tmp_path: Path) -> None:
    unrelated = PromptAnswer("Who?", "Ann")
    [question] = read(tmp_path, record())
    assert edit_tuple(question, unrelated) == EditTuple(
        id=question.id,
        edit=PromptAnswer("What voice type is Louise Grandjean?", "soprano"),
        equivalent=("What tone does Louise Grandjean sing in?",),
        unrelated=unrelated,
        subject="Louise Grandjean",
    )


MEND = {
    "subject": "Louise Grandjean",
    "src": "What voice type is Louise Grandjean?",
    "pred": "baritone",
    "rephrase": "How does Louise Grandjean sing?",
    "alt": "mezzo soprano",
    "answers": ["soprano"],
    "loc": "nq question: who sang it first",
    "loc_ans": "Ann",
    "cond": "baritone >> mezzo soprano || What voice type is Louise Grandjean?",
}


def test_mends_records_ask_the_same_questions(tmp_path: Path) -> None:
    knowedits, mends = read(tmp_path, record(), MEND)
    assert mends == replace(knowedits, rephrasings=("How does Louise Grandjean sing?",))
    [joined], counts = select([knowedits, mends])
    assert joined.rephrasings == ("What tone does Louise Grandjean sing in?", "How does Louise Grandjean sing?")
    assert (counts["read"], counts["joined"], counts["kept"]) == (2, 1, 1)


def test_mends_records_may_lack_a_rephrasing(tmp_path: Path) -> None:
    questions = read(tmp_path, MEND | {"rephrase": " "})
    assert select(questions)[1]["dropped_no_rephrasing"] == 1


@pytest.mark.parametrize(
    "malformed, reason",
    [
        (MEND | {"answers": []}, "the list of answers is empty"),
        (MEND | {"src": 3}, "expected text, found 3"),
        (MEND | {"rephrase": None}, "expected text, found None"),
        ({"src": "Who?"}, "field 'subject' is missing"),
        ("text", "expected a JSON object, found str"),
        ({}, "field 'prompt' is missing"),
        (record(ground_truth=[]), "the list of answers is empty"),
        (record(ground_truth="soprano"), "expected a list of answers"),
        (record(subject=None), "expected text, found None"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, malformed: Any, reason: str) -> None:
    with pytest.raises(UserError, match=rf"zsre\.json, record 1: {reason}"):
        read(tmp_path, record(), malformed)


@pytest.mark.parametrize(
    "content, reason",
    [
        ("{}", "expected a list of records, found dict"),
        ('[{"a": 1},\n', "is not valid JSON .*line 2"),
        (None, "not exist"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "zsre.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"zsre\.json.*{reason}"):
        read_questions(path)


def test_selection_joins_the_rephrasings_of_one_question(tmp_path: Path) -> None:
    questions = read(
        tmp_path,
        record(),
        record(rephrase_prompt="How does she sing?"),
        record(rephrase_prompt="How does she sing"),
        record(prompt="Is it so?", rephrase_prompt="Is it SO"),
        record(prompt="Which?", ground_truth=["a"]),
        record(prompt="Which?", ground_truth=["b"]),
    )
    [kept], counts = select(questions)
    assert [key.rstrip("?") for key in kept.rephrasings] == [
        "What tone does Louise Grandjean sing in",
        "How does she sing",
    ]
    assert counts == {"read": 6, "dropped_contradictory": 2, "joined": 2, "dropped_no_rephrasing": 1, "kept": 1}
