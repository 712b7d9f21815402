"""NQ-open questions: parsing and selection."""

import json
from pathlib import Path
from typing import Any

import pytest

from malmen.data.nq import as_question, read_questions, select
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
    return path


def test_the_first_answer_is_taken_and_further_fields_are_ignored(tmp_path: Path) -> None:
    first = {"question": "who wrote he ain't heavy", "answer": ["Bobby  Scott", "Bob Russell"]}
    second = {"question": "how many are there", "answer": ["Nine"], "def_correct_predictions": ["9"]}
    assert read_questions(write(tmp_path / "nq.jsonl", first, second)) == [
        PromptAnswer("Who wrote he ain't heavy?", "Bobby Scott"),
        PromptAnswer("How many are there?", "Nine"),
    ]


def test_a_question_mark_is_not_doubled() -> None:
    assert as_question("really?") == "Really?"
    assert as_question("NASA is what") == "NASA is what?"


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"question": "who"}, "field 'answer' is missing"),
        ({"question": "who", "answer": []}, "the list of answers is empty"),
        ({"question": "who", "answer": "Nine"}, "expected a list of answers, found 'Nine'"),
        ({"question": "", "answer": ["Nine"]}, "expected text"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "nq.jsonl", {"question": "who", "answer": ["me"]}, record)
    with pytest.raises(UserError, match=rf"nq\.jsonl, line 2: {reason}"):
        read_questions(path)


def test_selection_drops_unanswered_and_repeated_questions() -> None:
    pairs = [PromptAnswer("Who?", "---"), PromptAnswer("Who was it?", "Ann"), PromptAnswer("who was it", "Bob")]
    kept, counts = select(pairs)
    assert kept == [pairs[1]]
    assert counts == {"read": 3, "dropped_unanswered": 1, "dropped_repeated": 1, "kept": 1}
