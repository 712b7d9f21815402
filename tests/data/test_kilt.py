"""Reading KILT's FEVER and zsRE."""

from pathlib import Path
from typing import Any

import pytest
from upstream_files import Record, evidence, json_lines, kilt_fever, kilt_zsre

from malmen.data.kilt import Original, claim, questions, read_records
from malmen.data.zsre import question_id
from malmen.errors import UserError


def test_a_claim_is_read_with_the_page_that_it_is_about() -> None:
    expected = Original("fever-70001", "Bram Okafor 1 was born in Belmar.", "REFUTES", "Bram Okafor 1")
    assert claim(kilt_fever(1)) == [expected]


def test_an_answer_may_stand_apart_from_its_evidence() -> None:
    output: list[Record] = [{"provenance": evidence("A")}, {"answer": "SUPPORTS"}]
    assert claim(kilt_fever(1) | {"output": output})[0].answer == "SUPPORTS"
    assert claim(kilt_fever(1) | {"output": output})[0].subject == "A"
    assert claim(kilt_fever(1) | {"output": output[1:]})[0].subject is None


def test_every_template_question_is_one() -> None:
    prompts = ["Where was Ada Lund 0 born?", "In which place was Ada Lund 0 born?"]
    assert questions(kilt_zsre(0)) == [
        Original(question_id(prompt), prompt, "Avaria", "Ada Lund 0", "place of birth") for prompt in prompts
    ]


def test_the_first_of_several_answers_counts() -> None:
    output = [{"answer": " Avaria\n"}, {"answer": "Belmar"}]
    assert {item.answer for item in questions(kilt_zsre(0) | {"output": output})} == {"Avaria"}


@pytest.mark.parametrize(
    ("parse", "record", "reason"),
    [
        (claim, kilt_fever(0) | {"output": [{"answer": "NOT ENOUGH INFO"}]}, "the label 'NOT ENOUGH INFO' is neither"),
        (claim, kilt_fever(0) | {"output": []}, "the output holds no answer"),
        (claim, {"id": 1, "output": [{"answer": "SUPPORTS"}]}, "field 'input' is missing"),
        (questions, kilt_zsre(0) | {"input": "Ada Lund"}, "expected a subject and a relation, found 'Ada Lund'"),
        (questions, kilt_zsre(0) | {"meta": {}}, "field 'template_questions' is missing"),
        (questions, kilt_zsre(0) | {"meta": {"template_questions": [""]}}, "expected text, found ''"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, parse: Any, record: Record, reason: str) -> None:
    good = kilt_fever(0) if parse is claim else kilt_zsre(0)
    path = json_lines(tmp_path / "kilt.jsonl", [good, record])
    with pytest.raises(UserError, match=rf"kilt\.jsonl, line 2: {reason}.*; download the file again\.$"):
        read_records(path, parse)
