"""Files of facts as people have them: large, exported, from other tools, by other keyboards."""

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_facts_files import write_lines

from malmen.data.matching import find
from malmen.data.tuples import EditTuple, read_tuples
from malmen.errors import UserError
from malmen.own_facts.facts import Fact, read_facts, read_unrelated

GOOD: dict[str, Any] = {"prompt": "Who directed Lost Harbour?", "answer": "Ana Brandt"}
OTHER: dict[str, Any] = {"prompt": "Where was Otto Lind born?", "answer": "South Vale"}
TUPLE: dict[str, Any] = {"id": "1", "edit": GOOD, "equivalent": ["Who made Lost Harbour?"], "unrelated": OTHER}

Read = Callable[[Path], list[Any]]
READERS: list[Read] = [read_facts, read_unrelated]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists of problems go into a folder of the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refusal(read: Read, path: Path) -> list[str]:
    """Return the lines of a refusal; each is a sentence that names the file."""
    with pytest.raises(UserError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert all(line.endswith(".") and str(path) in line for line in lines), lines
    return lines


def listed(lines: list[str]) -> list[str]:
    """Return all problems, from the file that a refusal names."""
    (name,) = re.findall(r"/\S+/malmen-problems-\S+\.txt", lines[-1])
    return Path(name).read_text(encoding="utf-8").splitlines()


# All that is wrong comes in one report.


@pytest.mark.parametrize("read", READERS)
def test_all_bad_records_are_in_one_report(tmp_path: Path, read: Read) -> None:
    records: list[dict[str, Any]] = [GOOD if i % 2 else {**GOOD, "answer": ""} for i in range(748)]
    lines = refusal(read, write_lines(tmp_path / "facts.jsonl", records))
    assert "374 problems" in lines[0] and "748 records" in lines[0] and len(lines) == 12
    assert [re.findall(r"line \d+", line) for line in listed(lines)] == [[f"line {n}"] for n in range(1, 748, 2)]


def test_contradictions_are_in_the_report_too(tmp_path: Path) -> None:
    prompts = [f"The twin town of Vale {i} is" for i in range(79)]
    pairs = [{"prompt": p, "answer": a} for p in prompts for a in ("Eastport", "Westport")]
    lines = refusal(read_facts, write_lines(tmp_path / "facts.jsonl", [*pairs, {"prompt": "", "answer": "x"}]))
    assert "80 problems" in lines[0] and "159 records" in lines[0]
    assert sum("'Eastport' in" in problem for problem in listed(lines)) == 79


def test_malformed_tuples_are_in_one_report(tmp_path: Path) -> None:
    records = [TUPLE | {"id": str(i % 30), "equivalent": [] if i == 0 else ["What?"]} for i in range(40)]
    lines = refusal(read_tuples, write_lines(tmp_path / "train.jsonl", records))
    assert "10 problems" in lines[0] and "40 records" in lines[0]
    assert "line 1:" in lines[1] and "'equivalent'" in lines[1] and "line 32:" in lines[2] and "'1'" in lines[2]


def test_a_long_value_is_cut_off_in_the_report(tmp_path: Path) -> None:
    records = [{"prompt": "Who? " * 100_000, "answer": answer} for answer in ("Ada", "Bo", ["x"] * 10_000)]
    assert all(len(line) < 1000 for line in refusal(read_facts, write_lines(tmp_path / "facts.jsonl", records)))


# A subject is found as people write it, and refuses nothing where it is not used.


@pytest.mark.parametrize(
    ("subject", "prompt", "found"),
    [
        ("Holm's Prize", "When was the Holm’s Prize founded?", "Holm’s Prize"),
        ("Holm’s Prize", "When was the Holm's Prize founded?", "Holm's Prize"),
        ("Lost Harbour", "who directed lost harbour?", "lost harbour"),
        ("STRASSE 9", "Wo liegt die Straße 9?", "Straße 9"),
        ("Zoé Élan", unicodedata.normalize("NFD", "Qui est Zoé Élan ?"), unicodedata.normalize("NFD", "Zoé Élan")),
        (unicodedata.normalize("NFD", "Zoé"), "Où vit zoé ?", "zoé"),
        ("Dạ", unicodedata.normalize("NFD", "Dạ là ai?"), unicodedata.normalize("NFD", "Dạ")),
        ("A-B", "Who runs A\u2013B now?", "A\u2013B"),
        ("A — B", "Who runs a - b now?", "a - b"),
        ('The "Ox"', "Who wrote the “Ox”?", "the “Ox”"),
        ("Jon  Ek", "Where is Jon\u00a0Ek?", "Jon\u00a0Ek"),
        ("Jon Ek", "Where is Jon \n Ek?", "Jon \n Ek"),
        ("Kezir", "Who is Ke\u00adzir?", "Ke\u00adzir"),
        ("ada", "Is Canada Ada's?", "ada"),
        ("ADA", "Is Canada Ada's?", "Ada"),
        ("Jose", "Who is José?", None),
        ("Jose", unicodedata.normalize("NFD", "Who is José?"), None),
        ("S", "Ruft man ß?", None),
        ("Ada", "Who is Bo?", None),
        (" ", "Who is Bo?", " "),
        ("\u00ad", "Who is Bo?", None),
    ],
)
def test_a_subject_is_found_as_the_prompt_writes_it(subject: str, prompt: str, found: str | None) -> None:
    span = find(subject, prompt)
    assert (span and prompt[slice(*span)]) == found
    if found and found.strip():
        fact = Fact(prompt, "x", subject=subject)
        assert fact.subject == fact.stated_subject == found and found in prompt


def test_a_subject_that_is_not_in_the_prompt_refuses_no_file(tmp_path: Path) -> None:
    records = [GOOD | {"subject": subject} for subject in ("Zoé", "", None, 7, ["Lost Harbour"], " lost  harbour ")]
    facts = read_facts(write_lines(tmp_path / "facts.jsonl", records))
    assert [fact.stated_subject for fact in facts] == [None, None, None, None, "Lost Harbour"][: len(facts)]
    assert [fact.subject for fact in facts] == ["Zoé", None, "7", '["Lost Harbour"]', "Lost Harbour"]
    assert all(isinstance(fact.edit_tuple(fact.pair), EditTuple) for fact in facts)


# Formats.


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("text", "places"),
    [
        (json.dumps([GOOD, OTHER]), ["record 1", "record 2"]),
        (json.dumps([GOOD, OTHER], indent=2), ["line 2", "line 6"]),
        (f"\n [{json.dumps(GOOD)},\n{json.dumps(OTHER)}]\n\n", ["line 2", "line 3"]),
        (f"{json.dumps(GOOD, indent=1)}\n{json.dumps(OTHER, indent=1)}\n", ["line 1", "line 5"]),
        (json.dumps(GOOD, indent=1), ["line 1"]),
        (f"\ufeff{json.dumps(GOOD)}\r\n\r\n{json.dumps(OTHER)}\r\n \r\n", ["line 1", "line 3"]),
        (f"{json.dumps(GOOD)}\r{json.dumps(OTHER)}", ["line 1", "line 2"]),
        (json.dumps(GOOD | {"prompt": "Why? " * 200_000}), ["line 1"]),
        (json.dumps(GOOD | {"prompt": "a\u2028b\u0085c [1], {2}"}, ensure_ascii=False), ["line 1"]),
    ],
)
def test_lists_and_lines_are_read(tmp_path: Path, read: Read, text: str, places: list[str]) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(text.encode())
    assert [fact.where for fact in read(path)] == places


def test_a_pipe_is_read() -> None:
    """A shell gives one for <(...)."""
    reader, writer = os.pipe()
    os.write(writer, json.dumps(GOOD).encode())
    os.close(writer)
    assert [fact.answer for fact in read_facts(Path(f"/dev/fd/{reader}"))] == [GOOD["answer"]]
    os.close(reader)


def test_a_list_of_tuples_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tuples.json"
    path.write_text("\ufeff" + json.dumps([TUPLE, TUPLE | {"id": "2", "case": 7}], indent=1), encoding="utf-8")
    assert [item.id for item in read_tuples(path)] == ["1", "2"]


@pytest.mark.parametrize("read", [*READERS, read_tuples])
@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("f.csv", b"name,city\nAda,Cor\n", ["CSV", "prompt", "read_csv"]),
        ("f.csv", b'"name";"city"\n"Ada";"Cor"\n', ["CSV", "semicolons"]),
        ("f.tsv", b"name\tcity\nAda\tCor, or Est\n", ["tabs", "read_table"]),
        ("f.yaml", b"- prompt: Who?\n  answer: Ada\n", ["YAML"]),
        ("f.txt", b"Who?\nAda\n", ["plain text"]),
        ("f.json", b"<!DOCTYPE html>\n<html>", ["HTML"]),
        ("f.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["LFS"]),
        ("f.jsonl", "\ufeff[]".encode("utf-16-le"), ["UTF-16"]),
        ("f.xlsx", b"PK\x03\x04\x14\x00", ["Excel", "read_excel"]),
        ("f.parquet", b"PAR1\x15\x04", ["Parquet", "read_parquet"]),
        ("f.jsonl.gz", b"\x1f\x8b\x08\x00", ["gzip"]),
        ("f.json", json.dumps({"data": [GOOD], "version": 1}).encode(), ["'data'", "'version'", "prompt"]),
        ("f.json", b'[{"prompt": "Who?", "answer": "Ada"},\n {"prompt": "Wh', ["line 2"]),
        ("f.json", b'[{"prompt": "Who?", "answer": "Ada"}\n {"prompt": "Why?"}]', ["line 2"]),
        ("f.jsonl", b'{"prompt": "Wh\xe9?", "answer": "Ada"}\n', ["UTF-8", "byte 14", "line 1"]),
        ("f.jsonl", b'{"prompt": "Who?", \0 "answer": "Ada"}\n', ["line 1", "NUL"]),
        ("f.jsonl", b"\0" * 4096, ["NUL"]),
        ("f.json", b'["Who?", "Ada"]', ["record 1", "found str"]),
    ],
)
def test_another_format_is_named(tmp_path: Path, read: Read, name: str, content: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = "\n".join(refusal(read, path))
    assert all(part in message for part in parts), message


# Fields.


def test_a_field_of_another_name_is_named_once(tmp_path: Path) -> None:
    record = {"case_id": 3, "question": "Who?", "answer": "Ada", "subject": "Who", "paraphrases": ["Who is it?"]}
    (line,) = refusal(read_facts, write_lines(tmp_path / "facts.jsonl", [record] * 5000))
    assert all(part in line for part in ("'prompt'", "rename 'question'", "'case_id'", "'paraphrases'"))


def test_unknown_fields_are_named_once_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [GOOD | {"case_id": 1, "object": "x", "subject_id": "Q1"}, OTHER | {"rephrase_prompt": "Where?"}]
    with caplog.at_level("WARNING", "malmen"):
        facts = read_facts(write_lines(tmp_path / "facts.jsonl", records))
    assert [fact.pair.prompt for fact in facts] == [GOOD["prompt"], OTHER["prompt"]]
    (message,) = caplog.messages
    names = ("'case_id'", "'object'", "'subject_id'", "'rephrase_prompt'", "'rephrasings'")
    assert all(name in message for name in names)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("rephrasing", "rephrasings"),
        ("rephrase", "rephrasings"),
        ("Rephrasings", "rephrasings"),
        ("re-phrasings", "rephrasings"),
        ("subjects", "subject"),
        ("subjcet", "subject"),
        ("promt", "prompt"),
        ("PROMPT ", "prompt"),
        ("anwser", "answer"),
        ("answers", "answer"),
    ],
)
def test_a_misspelt_field_is_refused_once_with_the_right_one(tmp_path: Path, wrong: str, right: str) -> None:
    full = GOOD | {"rephrasings": ["Who made it?"], "subject": "Lost Harbour"}
    record = {(wrong if key == right else key): value for key, value in full.items()}
    (line,) = refusal(read_facts, write_lines(tmp_path / "facts.jsonl", [full, *[record] * 1000]))
    assert all(part in line for part in ("line 2", repr(wrong), repr(right), "999 more"))
