"""FEVER claims: parsing, selection, and the edits made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from malmen.data.fever import FeverClaim, edit_tuple, read_claims, select
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError


def record(**changes: Any) -> dict[str, Any]:
    evidence = [[[1, 2, None, None]], [[1, 2, "Soul_Food_-LRB-film-RRB-", 0], [1, 2, "Other", 1]]]
    return {"id": 7, "label": "SUPPORTS", "claim": "Soul Food  is a film.", "evidence": evidence} | changes


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
    return path


def claim(text: str, label: str, name: str = "a") -> FeverClaim:
    return FeverClaim(name, text, label, None)


def test_a_claim_is_read_with_its_first_page_as_subject(tmp_path: Path) -> None:
    claims = read_claims(write(tmp_path / "a.jsonl", record(), record(id=8, evidence=[[[1, None, None, None]]])))
    assert claims[0] == FeverClaim("fever-7", "Soul Food is a film.", "SUPPORTS", "Soul Food (film)")
    assert claims[1].subject is None


def test_the_spellings_of_the_label_are_one(tmp_path: Path) -> None:
    labels = ["Not Enough Info", "NOT ENOUGH INFO", "refutes "]
    claims = read_claims(write(tmp_path / "a.jsonl", *(record(label=label) for label in labels)))
    assert [item.label for item in claims] == ["NOT ENOUGH INFO", "NOT ENOUGH INFO", "REFUTES"]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"label": "MAYBE"}, "the label 'MAYBE' is not SUPPORTS, REFUTES"),
        ({"claim": " "}, "expected text, found ' '"),
        ({"claim": None}, "expected text, found None"),
        ({"evidence": None}, "not None"),
        ({"evidence": [[["no page"]]]}, "not \\[\\[\\['no page'"),
        ({"evidence": [[[1, 2, 3, 4]]]}, "expected text, found 3"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "a.jsonl", record(), record(**changes))
    with pytest.raises(UserError, match=rf"a\.jsonl, line 2: .*{reason}"):
        read_claims(path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    incomplete = record()
    del incomplete["claim"]
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: field 'claim' is missing; download the file again"):
        read_claims(write(tmp_path / "a.jsonl", incomplete))


def test_selection_drops_unsettled_repeated_and_contradictory_claims() -> None:
    kept, counts = select(
        [
            claim("Janet is a person.", "SUPPORTS", "1"),
            claim("Ice-T had an album.", "SUPPORTS", "2"),
            claim("Nobody knows.", "NOT ENOUGH INFO", "3"),
            claim("Ice T had an ALBUM", "SUPPORTS", "4"),
            claim("Janet is a person.", "REFUTES", "5"),
            claim("Janet is a  person.", "SUPPORTS", "6"),
            claim("Soyuz flew.", "REFUTES", "7"),
        ]
    )
    assert [item.id for item in kept] == ["2", "7"]
    assert counts == {
        "read": 7,
        "dropped_not_enough_info": 1,
        "dropped_contradictory": 3,
        "dropped_repeated": 1,
        "kept": 2,
    }


@pytest.mark.parametrize("label, opposite", [("SUPPORTS", "REFUTES"), ("REFUTES", "SUPPORTS")])
def test_an_edit_reverses_the_label(label: str, opposite: str) -> None:
    unrelated = PromptAnswer("There is a novel.", "SUPPORTS")
    item = edit_tuple(FeverClaim("fever-1", "Soyuz flew.", label, "Soyuz"), unrelated, n_equivalent=3, seed=0)
    assert item.edit == PromptAnswer("Soyuz flew.", opposite)
    assert (item.id, item.subject, item.unrelated, len(item.equivalent)) == ("fever-1", "Soyuz", unrelated, 3)
    assert all("Soyuz flew" in text and text != "Soyuz flew." for text in item.equivalent)
