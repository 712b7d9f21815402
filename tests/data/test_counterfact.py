"""CounterFact in EasyEdit's flat format: parsing, selection, and the edits made of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from malmen.data.counterfact import (
    Statement,
    edit_tuple,
    named,
    read_statements,
    select,
    topics_among,
    without_preserved,
)
from malmen.data.splitting import families
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError


def record(number: int = 2, **changes: Any) -> dict[str, Any]:
    """Return a record about the writer of a number; None leaves a field out."""
    name = f"Ada {number}"
    fields = {
        "case_id": number,
        "prompt": f"{name}, who lives in",
        "target_new": "Rome",
        "subject": name,
        "ground_truth": "Oslo",
        "rephrase_prompt": f"{name} can be found in",
        "locality_prompt": f"Bram {number} lives in",
        "locality_ground_truth": "Oslo",
    } | changes
    return {key: value for key, value in fields.items() if value is not None}


def read(folder: Path, *records: Any) -> list[Statement]:
    path = folder / "cf.json"
    path.write_text(json.dumps(list(records), indent=1), encoding="utf-8")
    return read_statements(path)


def ids(statements: list[Statement]) -> list[str]:
    return [item.id.removeprefix("counterfact-") for item in statements]


def test_an_edit_demands_the_false_end(tmp_path: Path) -> None:
    [item] = read(tmp_path, record(rephrase_prompt="References\n\nA rose.  Ada 2 can be found in "))
    assert edit_tuple(item) == EditTuple(
        id="counterfact-2",
        edit=PromptAnswer("Ada 2, who lives in", "Rome"),
        equivalent=("References A rose. Ada 2 can be found in",),
        unrelated=PromptAnswer("Bram 2 lives in", "Oslo"),
        subject="Ada 2",
        truth="Oslo",
    )


@pytest.mark.parametrize(
    "malformed, reason",
    [
        ("text", "expected a JSON object, found str"),
        (None, "expected a JSON object, found NoneType"),
        (record(4, prompt=None), "field 'prompt' is missing"),
        (record(4, case_id=None), "field 'case_id' is missing"),
        (record(4, case_id="4"), "expected a number as case_id, found '4'"),
        (record(4, case_id=True), "expected a number as case_id, found True"),
        (record(2, prompt="Who?"), "the case_id 2 occurs twice"),
        (record(4, target_new=" "), "expected text, found ' '"),
        (record(4, subject=["Ada"]), r"expected text, found \['Ada'\]"),
        (record(4, ground_truth=3), "expected text, found 3"),
        (record(4, rephrase_prompt=["Ada"]), r"expected text, found \['Ada'\]"),
        (record(4, locality_ground_truth=0), "expected text, found 0"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, malformed: Any, reason: str) -> None:
    with pytest.raises(UserError, match=rf"cf\.json, record 1: {reason}; download the file again\.$"):
        read(tmp_path, record(), malformed)


def nested(**changes: Any) -> dict[str, Any]:
    """Return record 2 in the format of ROME and MEMIT; changes are those of its request."""
    request = {
        "prompt": "{}, who lives in",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Oslo", "id": "Q585"},
        "subject": "Ada 2",
    }
    return {
        "case_id": 2,
        "requested_rewrite": request | changes,
        "paraphrase_prompts": ["Ada 2 can be found in", "A rose.\n\nAda 2's home is"],
        "neighborhood_prompts": ["Bram 2 lives in", "Cleo 2 lives in"],
    }


def test_the_format_of_rome_says_the_same(tmp_path: Path) -> None:
    [flat], [other] = read(tmp_path, record()), read(tmp_path, nested())
    assert other == replace(flat, rephrasings=("Ada 2 can be found in", "A rose. Ada 2's home is"))
    [bare] = read(tmp_path, nested() | {"paraphrase_prompts": [], "neighborhood_prompts": None})
    assert (bare.rephrasings, bare.unrelated) == ((), ())


@pytest.mark.parametrize(
    "malformed, reason",
    [
        (nested(prompt="She lives in"), r"expected one \{\} in the prompt, found 'She lives in'"),
        (nested(target_new={"id": "Q220"}), "field 'str' is missing"),
        (nested(subject=None), "expected text, found None"),
        (nested() | {"case_id": None}, "expected a number as case_id, found None"),
        (nested() | {"requested_rewrite": []}, r"expected an object as requested_rewrite, found \[\]"),
        (nested() | {"paraphrase_prompts": "Ada"}, "expected a list of prompts, found 'Ada'"),
        (nested() | {"neighborhood_prompts": [3]}, "expected text, found 3"),
    ],
)
def test_a_malformed_record_of_romes_is_named(tmp_path: Path, malformed: Any, reason: str) -> None:
    with pytest.raises(UserError, match=rf"cf\.json, record 1: {reason}; download the file again\.$"):
        read(tmp_path, record(4), malformed)


@pytest.mark.parametrize(
    "content, reason",
    [
        ('{"case_id": 1}', "expected a list of records, found dict"),
        ('{"case_id": 1}\n{"case_id": 2}\n', "is not valid JSON .*line 2"),
        (None, "does not exist"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "cf.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"cf\.json.*{reason}"):
        read_statements(path)


@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_a_record_without_what_an_edit_needs_is_left_out_and_counted(tmp_path: Path, nothing: str | None) -> None:
    lacking = [
        record(1, rephrase_prompt=nothing),
        record(2, locality_prompt=nothing),
        record(3, locality_ground_truth=nothing),
        record(4, rephrase_prompt="ada 4 who lives in..."),
    ]
    kept, counts = select(read(tmp_path, *lacking, record(5)))
    assert ids(kept) == ["5"]
    assert (counts["read"], counts["dropped_no_unrelated"], counts["dropped_no_rephrasing"]) == (5, 2, 2)
    [absent] = read(tmp_path, {**record(6), "rephrase_prompt": None})
    assert absent.rephrasings == ()


def test_records_with_one_prompt_are_joined_or_contradict_each_other(tmp_path: Path) -> None:
    records = [
        record(1),
        record(2),
        record(3, prompt="ada 1 who lives in", rephrase_prompt="The home of Ada 1 is", target_new="rome"),
        record(4, prompt="Ada 2, who lives in", target_new="Bonn"),
    ]
    [kept], counts = select(read(tmp_path, *records))
    assert kept.id == "counterfact-1" and kept.prompt == "Ada 1, who lives in"
    assert kept.rephrasings == ("Ada 1 can be found in", "The home of Ada 1 is")
    assert (counts["joined"], counts["dropped_contradictory"], counts["kept"]) == (1, 2, 1)


def test_two_answers_in_place_of_one_truth_contradict_each_other(tmp_path: Path) -> None:
    told_again = {"subject": "Ada 1", "prompt": "The home of Ada 1 is"}
    kept, counts = select(read(tmp_path, record(1), record(2, **told_again, target_new="Bonn")))
    assert kept == [] and counts["dropped_contradictory"] == 2
    kept, counts = select(read(tmp_path, record(1), record(2, **told_again)))
    assert ids(kept) == ["1", "2"] and counts["joined"] == 0
    kept, _ = select(read(tmp_path, record(1), record(2, **told_again, target_new="Bonn", ground_truth="Lima")))
    assert ids(kept) == ["1", "2"]


def test_unrelated_prompts_with_two_answers_are_left_out(tmp_path: Path) -> None:
    again = {"locality_prompt": "Bram 1 lives in:"}
    kept, counts = select(read(tmp_path, record(1), record(2, **again), record(3)))
    assert ids(kept) == ["1", "2", "3"]
    kept, counts = select(read(tmp_path, record(1), record(2, **again, locality_ground_truth="Lima"), record(3)))
    assert ids(kept) == ["3"] and counts["dropped_ambiguous_unrelated"] == 2


@pytest.mark.parametrize(
    ("preserved", "answer", "stays"),
    [
        ("Ada 1, who lives in", "Lima", False),  # the prompt
        ("ada 1 can be found in...", "Lima", False),  # the rephrasing
        ("The city of Ada 1 is", "oslo", False),  # the truth in other words
        ("The city of Ada 1 is", "Lima", True),  # another truth about the subject
        ("The city of Ada 11 is", "Oslo", True),  # another subject
    ],
)
def test_what_an_unrelated_tuple_preserves_is_not_edited(
    tmp_path: Path, preserved: str, answer: str, stays: bool
) -> None:
    statements = read(tmp_path, record(1), record(2, locality_prompt=preserved, locality_ground_truth=answer))
    assert ids(without_preserved(statements)) == (["1", "2"] if stays else ["2"])


def test_names_are_found_as_whole_words() -> None:
    subjects = {"Ada Lund", "Life", "Lund", "Yahoo!", "Law & Order", "Who's Who"}
    assert named("Ada Lund's life ended in", subjects) == {"Ada Lund", "Lund"}
    assert named("The owner of Yahoo! is", subjects) == {"Yahoo!"}
    assert named("Law & Order: LA premiered on", subjects) == {"Law & Order"}
    assert named("Who's Who, a product of", subjects) == {"Who's Who"}
    assert named("Lundby is in", subjects) == set()


def test_edits_share_topics_with_what_the_others_preserve(tmp_path: Path) -> None:
    records = [
        record(1),
        record(2, locality_prompt="Ada 1 was born in"),  # names a subject that is edited
        record(3),
        record(4, locality_prompt="Bram 3 lives in"),  # the same unrelated prompt
        record(5, locality_prompt="Ada 3's job is"),
        record(6),
    ]
    tuples = [edit_tuple(item) for item in read(tmp_path, *records)]
    found = families(tuples, topics_among(tuples))
    assert [[item.id[-1] for item in family] for family in found] == [["1", "2"], ["3", "4", "5"], ["6"]]
