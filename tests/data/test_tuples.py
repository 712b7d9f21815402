"""Reading and writing edit tuples."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from malmen.data.tuples import (
    SPLITS,
    EditTuple,
    PromptAnswer,
    enumerate_jsonl,
    read_documents,
    read_pairs,
    read_tuples,
    tuple_to_json,
    write_dataset,
    write_jsonl,
)
from malmen.errors import UserError


def edit_tuple(i: int, subject: str | None = None) -> EditTuple:
    edit = PromptAnswer(f"Who is {i}?", f"N{i}")
    return EditTuple(str(i), edit, (f"Who's {i}?", f"{i} is who?"), PromptAnswer("Où?", "Là\u2028bas"), subject)


def record(**changes: Any) -> dict[str, Any]:
    return asdict(edit_tuple(1)) | changes


def test_a_dataset_comes_back_as_it_was(tmp_path: Path) -> None:
    tuples = [edit_tuple(i, "someone" if i % 2 else None) for i in range(20)]
    splits = {"train": tuples[:10], "tune": tuples[10:15], "validation": tuples[15:]}
    finetune = [item.unrelated for item in tuples]
    documents = [["One line.", "Où?"], ["Another matter."]]
    write_dataset(tmp_path, splits, finetune, documents)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "finetune.jsonl",
        "text.txt",
        "train.jsonl",
        "tune.jsonl",
        "validation.jsonl",
    ]
    assert {name: read_tuples(tmp_path / f"{name}.jsonl") for name in SPLITS} == splits
    assert read_pairs(tmp_path / "finetune.jsonl") == finetune
    assert (tmp_path / "text.txt").read_text(encoding="utf-8") == "One line.\nOù?\n\nAnother matter.\n"
    assert read_documents(tmp_path / "text.txt") == documents


def test_a_truth_is_written_only_where_it_is_known(tmp_path: Path) -> None:
    tuples = [edit_tuple(1), replace(edit_tuple(2), truth="N0")]
    write_jsonl(tmp_path / "a.jsonl", map(tuple_to_json, tuples))
    assert read_tuples(tmp_path / "a.jsonl") == tuples
    (_, first), (_, second) = enumerate_jsonl(tmp_path / "a.jsonl")
    assert list(first) == ["id", "edit", "equivalent", "unrelated", "subject"]
    assert list(second) == [*first, "truth"]


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [asdict(edit_tuple(1)), asdict(edit_tuple(2))])
    assert "\u2028" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert read_tuples(tmp_path / "a.jsonl") == [edit_tuple(1), edit_tuple(2)]


def test_an_empty_file_holds_no_tuples(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert read_tuples(tmp_path / "a.jsonl") == []


MISSING = {key: value for key, value in record().items() if key != "unrelated"}


@pytest.mark.parametrize(
    "line, reason",
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "expected a JSON object, found list"),
        (json.dumps(MISSING), "field 'unrelated' is missing"),
        (json.dumps(record(id="")), "'id' must be a non-empty string"),
        (json.dumps(record(id=5)), "'id' must be a non-empty string, not 5"),
        (json.dumps(record(equivalent=[])), "'equivalent' must be a non-empty list"),
        (json.dumps(record(equivalent=["x", " "])), "'equivalent' must be a non-empty list of non-empty strings"),
        (json.dumps(record(edit={"prompt": "Who?", "answer": " "})), "'answer' must be a non-empty string"),
        (json.dumps(record(edit={"prompt": "Who?", "answer": 5})), "'answer' must be a non-empty string, not 5"),
        (json.dumps(record(edit={"prompt": "Who?"})), "answer"),
        (json.dumps(record(truth=" ")), "'truth' must be a non-empty string or null"),
        (json.dumps(record(edit="Who?")), "."),
        (json.dumps(record(id="0")), "the id '0' occurs twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(asdict(edit_tuple(0))) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_tuples(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: ") and reason in message
    assert message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("line", ["{}", '{"prompt": "Who?", "answer": ""}', '{"prompt": "a", "answer": "b", "c": 1}'])
def test_a_malformed_pair_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "finetune.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=r"finetune\.jsonl, line 1: .*make the file again\.$"):
        read_pairs(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl is not UTF-8 text \(byte 8\)"):
        read_tuples(path)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl does not exist; check the path"):
        read_tuples(tmp_path / "train.jsonl")
