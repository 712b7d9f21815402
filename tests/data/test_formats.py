"""Facts in the formats that people have them in."""

import io
import json
import os
import re
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from malmen.config.base import Answers
from malmen.data.formats import FactRecord, formats, read_fact_records, read_unrelated_pairs
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError

Record = dict[str, Any]
MIRROR = Path(os.environ.get("MALMEN_MIRROR", "/nonexistent"))

OWN: Record = {
    "prompt": "Who made Vale?",
    "answer": " Ada ",
    "rephrasings": ["Vale is by whom?"],
    "subject": "Vale",
    "unrelated_prompt": "Where is Cor?",
    "unrelated_answer": "Est",
}
TUPLE: Record = {
    "id": "7",
    "edit": {"prompt": "Who made Vale?", "answer": "Ada"},
    "equivalent": ["Vale is by whom?"],
    "unrelated": {"prompt": "Where is Cor?", "answer": "Est"},
    "subject": "Vale",
}
REWRITE: Record = {
    "case_id": 3,
    "pararel_idx": 9,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Danielle Darrieux, a native", "Danielle Darrieux spoke"],
    "neighborhood_prompts": ["The mother tongue of Léon Blum is", "Montesquieu, a native"],
    "attribute_prompts": ["J.R.R. Tolkien spoke"],
    "generation_prompts": ["Danielle Darrieux was born in"],
}
NO_NEIGHBOURS: Record = {"neighborhood_prompts": []}
KNOWN: Record = {
    "known_id": 0,
    "subject": "Vinson Massif",
    "attribute": "Antarctica",
    "template": "{} is located in the continent",
    "prediction": " of Antarctica. It",
    "prompt": "Vinson Massif is located in the continent",
    "relation_id": "P30",
}
KNOWEDIT: Record = {
    "subject": "Vale",
    "prompt": "Who made Vale?",
    "target_new": "Ada",
    "ground_truth": ["Bo"],
    "rephrase_prompt": ["Vale is by whom?", "By whom is Vale?"],
    "locality": {
        "Relation_Specificity": [
            {"prompt": "Where is Cor?", "ground_truth": ["Est"]},
            {"prompt": "Who is Dov?", "ground_truth": [["a king", "king"]]},
        ],
        "neighborhood": {"prompt": ["Is it?"], "ground_truth": ["Yes"]},
    },
    "portability": {"Reasoning": [{"prompt": "Where was the maker of Vale born?", "ground_truth": "Cor"}]},
}
FLAT: Record = {
    "case_id": 2,
    "prompt": "Toko Yasuda, the",
    "target_new": "piano",
    "subject": "Toko Yasuda",
    "ground_truth": "guitar",
    "rephrase_prompt": "Toko Yasuda is incredible at",
    "locality_prompt": "John Lennon performs on the",
    "locality_ground_truth": "guitar",
}
MEND: Record = {
    "subject": "Vale",
    "src": "Who made Vale?",
    "pred": "Bo",
    "rephrase": "Vale is by whom?",
    "alt": "Ada",
    "answers": ["Bo", "Bo Lind"],
    "loc": "nq question: where is cor",
    "loc_ans": "Est",
    "cond": "Bo >> Ada || Who made Vale?",
}
AUTHORS_ZSRE: Record = {
    "src": "Who made Vale?",
    "rephrase": "Vale is by whom?",
    "ans": "Ada",
    "loc": "where is cor",
    "loc_ans": "Est",
}
AUTHORS_FEVER: Record = {
    "prompt": "Ada sings.",
    "equiv_prompt": ["Ada is a singer.", "It is Ada who sings."],
    "alt": "REFUTES",
    "unrel_prompt": "Bo swims.",
    "unrel_ans": "NOT ENOUGH INFO",
}
WIKIBIGEDIT: Record = {
    "tag": "x",
    "subject": "Vale",
    "update": "Who made Vale?",
    "rephrase": "Vale is by whom?",
    "ans": "Ada",
    "personas": "Tell a sailor: who made Vale?",
    "loc": "Where is Cor?",
    "loc_ans": "Est",
    "mhop": "Where was the maker of Vale born?",
    "mhop_ans": None,
}
EST = (PromptAnswer("Where is Cor?", "Est"),)
VALE = FactRecord("Who made Vale?", "Ada", ("Vale is by whom?",), "Vale", EST)

CASES: list[tuple[str, Record, str, FactRecord]] = [
    ("this package (facts)", OWN, "answer", VALE),
    ("this package (edit tuples)", TUPLE, "edit.answer", VALE),
    (
        "ROME and MEMIT (requested_rewrite)",
        REWRITE,
        "requested_rewrite.target_new",
        FactRecord(
            "The mother tongue of Danielle Darrieux is",
            "English",
            ("Danielle Darrieux, a native", "Danielle Darrieux spoke"),
            "Danielle Darrieux",
            (
                PromptAnswer("The mother tongue of Léon Blum is", "French"),
                PromptAnswer("Montesquieu, a native", "French"),
            ),
        ),
    ),
    (
        "ROME (known facts)",
        KNOWN,
        "attribute",
        FactRecord("Vinson Massif is located in the continent", "Antarctica", subject="Vinson Massif"),
    ),
    (
        "EasyEdit and KnowEdit",
        KNOWEDIT,
        "target_new",
        FactRecord(
            "Who made Vale?",
            "Ada",
            ("Vale is by whom?", "By whom is Vale?"),
            "Vale",
            (*EST, PromptAnswer("Who is Dov?", "a king"), PromptAnswer("Is it?", "Yes")),
        ),
    ),
    (
        "EasyEdit and KnowEdit",
        FLAT,
        "target_new",
        FactRecord(
            "Toko Yasuda, the",
            "piano",
            ("Toko Yasuda is incredible at",),
            "Toko Yasuda",
            (PromptAnswer("John Lennon performs on the", "guitar"),),
        ),
    ),
    ("MEND (zsRE)", MEND, "alt", FactRecord("Who made Vale?", "Ada", ("Vale is by whom?",), "Vale", (EST[0],))),
    (
        "MALMEN's authors (zsRE)",
        AUTHORS_ZSRE,
        "ans",
        FactRecord("Who made Vale?", "Ada", ("Vale is by whom?",), None, (PromptAnswer("where is cor?", "Est"),)),
    ),
    (
        "MALMEN's authors (FEVER)",
        AUTHORS_FEVER,
        "alt",
        FactRecord(
            "Ada sings.",
            "REFUTES",
            ("Ada is a singer.", "It is Ada who sings."),
            None,
            (PromptAnswer("Bo swims.", "REFUTES"),),
        ),
    ),
    (
        "WikiBigEdit",
        WIKIBIGEDIT,
        "ans",
        FactRecord("Who made Vale?", "Ada", ("Vale is by whom?", "Tell a sailor: who made Vale?"), "Vale", EST),
    ),
    (
        "NQ-open",
        {"question": "where is cor", "answer": ["Est", "East"]},
        "answer (the first)",
        FactRecord("Where is cor?", "Est"),
    ),
]
IDS = [f"{name}{i}" for i, (name, *_) in enumerate(CASES)]


def normal(record: FactRecord) -> tuple[object, ...]:
    """Return a record without its place and id; the first letter of an unrelated question does not count."""
    pairs = [(pair.prompt.casefold(), pair.answer) for pair in record.unrelated]
    return record.prompt, record.answer, record.rephrasings, record.subject, pairs


def write(path: Path, records: Iterable[object], as_list: bool = False) -> Path:
    lines = [json.dumps(record) for record in records]
    path.write_text(json.dumps([json.loads(line) for line in lines]) if as_list else "\n".join(lines) + "\n")
    return path


def refusal(path: Path, answers: Answers = "new") -> str:
    with pytest.raises(UserError) as caught:
        read_fact_records(path, answers)
    message = str(caught.value)
    assert all(line.endswith(".") for line in message.splitlines()), message
    return message


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(("name", "record", "answer", "expected"), CASES, ids=IDS)
def test_each_format_is_recognised_and_converted(
    tmp_path: Path,
    name: str,
    record: Record,
    answer: str,
    expected: FactRecord,
    as_list: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = read_fact_records(write(tmp_path / "f.json", [record], as_list))
    assert (found.read.format, found.read.answer, found.read.records, found.read.skipped) == (name, answer, 1, 0)
    (fact,) = found.records
    assert normal(fact) == normal(expected) and fact.where == "line 1"
    assert all(entry.levelname == "INFO" for entry in caplog.records)  # Nothing is called unknown.


def test_a_question_with_one_answer_is_not_rewritten_as_one_of_nq(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"question": "capital of Cor:", "answer": "Est"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: field 'prompt' is missing \(rename 'question' to 'prompt'"):
        read_fact_records(path)


def test_a_question_of_nq_gets_a_capital_and_a_question_mark(tmp_path: Path) -> None:
    (fact,) = read_fact_records(write(tmp_path / "f.json", [MEND])).records
    assert fact.unrelated == (PromptAnswer("Where is cor?", "Est"),)
    (fact,) = read_fact_records(write(tmp_path / "f.json", [AUTHORS_ZSRE])).records
    assert fact.unrelated == (PromptAnswer("where is cor?", "Est"),)


@pytest.mark.parametrize(
    ("record", "field", "answer"),
    [
        (OWN, "answer", "Ada"),
        (REWRITE, "requested_rewrite.target_true", "French"),
        (KNOWEDIT, "ground_truth", "Bo"),
        (FLAT, "ground_truth", "guitar"),
        (MEND, "answers (the first)", "Bo"),
        (AUTHORS_FEVER, "alt (the opposite label)", "SUPPORTS"),
    ],
)
def test_the_true_answer_is_taken_if_asked_for(tmp_path: Path, record: Record, field: str, answer: str) -> None:
    found = read_fact_records(write(tmp_path / "f.json", [record]), "true")
    assert (found.read.answer, found.records[0].answer) == (field, answer)


@pytest.mark.parametrize(
    ("record", "truth"),
    [
        (OWN, None),
        (TUPLE, None),
        (TUPLE | {"truth": "Bo"}, "Bo"),
        (REWRITE, "French"),
        (REWRITE | {"requested_rewrite": REWRITE["requested_rewrite"] | {"target_true": "French"}}, "French"),
        (REWRITE | {"requested_rewrite": REWRITE["requested_rewrite"] | {"target_true": "English"}}, None),
        (REWRITE | {"requested_rewrite": REWRITE["requested_rewrite"] | {"target_true": 3}, **NO_NEIGHBOURS}, None),
        (KNOWEDIT, "Bo"),
        (KNOWEDIT | {"ground_truth": []}, None),
        (FLAT, "guitar"),
        (MEND, "Bo"),
        (AUTHORS_ZSRE, None),
    ],
)
def test_the_true_answer_beside_the_new_one_is_kept(tmp_path: Path, record: Record, truth: str | None) -> None:
    path = write(tmp_path / "f.json", [record])
    assert read_fact_records(path).records[0].truth == truth
    if truth and "truth" not in record:
        assert read_fact_records(path, "true").records[0].truth is None


@pytest.mark.parametrize(
    ("record", "changes", "reason"),
    [
        (OWN, {"answer": 3}, "'answer' must be a non-empty string, not 3"),
        (OWN, {"rephrasings": "Who?"}, "'rephrasings' must be a list of non-empty strings, not 'Who?'"),
        (OWN, {"unrelated_answer": ""}, "'unrelated_answer' is empty, but 'unrelated_prompt' is not"),
        (TUPLE, {"equivalent": []}, "'equivalent' must be a non-empty list"),
        (REWRITE, {"requested_rewrite": "x"}, "'requested_rewrite' must be an object, not 'x'"),
        (
            REWRITE,
            {"requested_rewrite": REWRITE["requested_rewrite"] | {"prompt": "She speaks"}},
            "'requested_rewrite.prompt' must hold {} once, where the subject stands, not 'She speaks'",
        ),
        (
            REWRITE,
            {"requested_rewrite": REWRITE["requested_rewrite"] | {"target_new": {"str": ""}}},
            "'requested_rewrite.target_new' must be a non-empty string",
        ),
        (REWRITE, {"requested_rewrite": {"prompt": "{}", "subject": "x"}}, "field 'target_true' is missing"),
        (REWRITE, {"paraphrase_prompts": [7]}, "'paraphrase_prompts' must be a non-empty string or a list of them"),
        (KNOWN, {"template": "{} and {}"}, "'template' must hold {} once"),
        (KNOWN, {"attribute": None}, "'attribute' must be a non-empty string, not None"),
        (KNOWEDIT, {"target_new": ""}, "'target_new' must be a non-empty string or a list of them, not ''"),
        (KNOWEDIT, {"rephrase_prompt": {}}, None),
        (KNOWEDIT, {"rephrase_prompt": {"a": 1}}, "'rephrase_prompt' must be a non-empty string or a list of them"),
        (KNOWEDIT, {"locality": ["x"]}, "'locality' must be an object, not ['x']"),
        (
            KNOWEDIT,
            {"locality": {"R": [{"prompt": "Who?", "ground_truth": []}]}},
            "'locality.R.ground_truth' must be a non-empty string or a list of them, not []",
        ),
        (KNOWEDIT, {"locality": {"R": ["x"]}}, "'locality.R' must be an object, not 'x'"),
        (
            KNOWEDIT,
            {"locality": {"R": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
            "'locality.R' has 2 prompts but",
        ),
        (FLAT, {"locality_ground_truth": None}, "'locality_ground_truth' is empty, but 'locality_prompt' is not"),
        (FLAT, {"locality_prompt": "", "locality_ground_truth": ""}, None),
        (MEND, {"alt": []}, "'alt' must be a non-empty string or a list of them, not []"),
        (MEND, {"loc": ""}, "'loc' is empty, but 'loc_ans' is not"),
        (MEND, {"rephrase": ""}, None),
        (AUTHORS_ZSRE, {"src": " "}, "'src' must be a non-empty string, not ' '"),
        (AUTHORS_FEVER, {"alt": "MAYBE"}, "the label 'MAYBE' is neither SUPPORTS nor REFUTES"),
        (WIKIBIGEDIT, {"loc_ans": 12}, "'loc_ans' must be a non-empty string or a list of them, not 12"),
    ],
)
def test_what_does_not_fit_is_named_with_its_field(
    tmp_path: Path, record: Record, changes: Record, reason: str | None
) -> None:
    changed = json.loads(json.dumps(record)) | changes
    if reason and "target_true" in reason:  # Its neighbours have the true answer.
        changed["requested_rewrite"]["target_new"] = {"str": "English"}
    other = {**record, "id": "8"} if "id" in record else record
    path = write(tmp_path / "f.jsonl", [other, changed])
    if reason is None:
        assert len(read_fact_records(path).records) == 2
        return
    message = refusal(path)
    assert message.startswith(f"{path}, line 2: {reason}") and message.count("\n") == 0
    found = read_fact_records(path, skip_bad=True)
    assert (len(found.records), found.read.skipped) == (1, 1)


@pytest.mark.parametrize(("name", "record"), [case[:2] for case in CASES], ids=IDS)
def test_a_missing_field_is_named(tmp_path: Path, name: str, record: Record) -> None:
    needed = next(kind for kind in formats() if kind.name == name).fields.needed
    for field in needed:
        lacking = {key: value for key, value in record.items() if key != field}
        message = refusal(write(tmp_path / "f.jsonl", [record, lacking]))
        assert f"line 2: field {field!r} is missing" in message, message


@pytest.mark.parametrize(("record", "field", "other"), [(FLAT, "target_new", "ground_truth"), (MEND, "alt", "answers")])
def test_where_only_the_other_answer_is_there_the_flag_is_named(
    tmp_path: Path, record: Record, field: str, other: str
) -> None:
    path = write(tmp_path / "f.jsonl", [{k: v for k, v in record.items() if k != field}] * 2)
    assert f"no record has the field {field!r} (answers: true (--answers true) takes {other!r})" in refusal(path)
    assert len(read_fact_records(path, "true").records) == 2


def test_all_bad_records_are_named_at_once_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    records = [{**FLAT, "prompt": f"Toko {i} plays", "target_new": "piano" if i % 2 else 7} for i in range(40)]
    path = write(tmp_path / "f.json", records, as_list=True)
    message = refusal(path)
    assert message.startswith(f"20 problems in 40 records of {path}; these are the first 10.\n{path}, record 1: ")
    (listed,) = re.findall(r"/\S+/malmen-problems-\S+\.txt", message)
    assert [re.findall(r"record \d+", line)[0] for line in Path(listed).read_text().splitlines()] == [
        f"record {n}" for n in range(1, 41, 2)
    ]
    with caplog.at_level("WARNING", "malmen"):
        found = read_fact_records(path, skip_bad=True)
    assert [len(found.records), found.read.records, found.read.skipped] == [20, 40, 20]
    (warning,) = caplog.messages
    assert f"{path}: left out 20 bad records; the first: {path}, record 1: 'target_new'" in warning
    assert "without 20 records that do not fit" in str(found.read)


def test_a_file_without_a_good_record_is_refused_even_if_bad_ones_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No record of .* fits; for example: .*line 1: 'target_new'"):
        read_fact_records(write(tmp_path / "f.jsonl", [{**FLAT, "target_new": 7}]), skip_bad=True)


def test_facts_that_contradict_each_other_are_all_named_or_the_later_ones_left_out(tmp_path: Path) -> None:
    records = [{**FLAT, "target_new": answer} for answer in ("piano", "drums", "piano", "flute")]
    path = write(tmp_path / "f.jsonl", records)
    message = refusal(path)
    assert message.startswith(f"2 problems in 4 records of {path}.\n{path}, line 2: the prompt 'Toko Yasuda, the' has ")
    assert "line 4: " in message and message.count(f"'piano' in {path}, line 1") == 2
    found = read_fact_records(path, skip_bad=True)
    assert [record.where for record in found.records] == ["line 1", "line 3"] and found.read.skipped == 2


def test_edit_tuples_of_this_package_contradict_each_other_unless_they_may(tmp_path: Path) -> None:
    other = TUPLE | {"id": "8", "edit": {"prompt": "Who made Vale?", "answer": "Bo"}}
    path = write(tmp_path / "train.jsonl", [TUPLE, other])
    assert "line 2: the prompt 'Who made Vale?' has the answer 'Bo' here" in refusal(path)
    assert len(read_fact_records(path, may_contradict=["this package (edit tuples)"]).records) == 2


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_mixes_two_formats_is_refused(tmp_path: Path, skip_bad: bool) -> None:
    path = write(tmp_path / "f.jsonl", [{"prompt": 1}, FLAT, FLAT, MEND, OWN])
    with pytest.raises(UserError) as caught:
        read_fact_records(path, skip_bad=skip_bad)
    assert str(caught.value) == (
        f"{path} mixes two formats: line 2 is EasyEdit and KnowEdit, but line 4 is MEND (zsRE); put each into a file "
        "of its own."
    )


def test_fields_that_a_format_does_not_have_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "malmen"):
        read_fact_records(write(tmp_path / "f.jsonl", [FLAT | {"colour": "red", "portability": {}}]))
    (message,) = caplog.messages
    assert "ignored 'colour' (known: prompt, target_new" in message


# Tables.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "prompt,answer,rephrasings,subject,unrelated_prompt,unrelated_answer\n"
            '"Who made Vale?",Ada,Vale is by whom?,Vale,Where is Cor?,Est\n',
            VALE,
        ),
        (
            "Prompt\tAnswer\tRephrasing 1\tRephrasing 2\tNote\n\n Who, now?\tAda\tWhom?\t\tx\n\t\t\t\t\n",
            FactRecord("Who, now?", "Ada", ("Whom?",)),
        ),
        (
            "prompt;answer;rephrasings\nWho?;Ada, Bo;Whom? | Who, then?\n",
            FactRecord("Who?", "Ada, Bo", ("Whom?", "Who, then?")),
        ),
        ('prompt,answer,rephrasings\nWho?,Ada,"[""Whom?"", ""a|b""]"\n', FactRecord("Who?", "Ada", ("Whom?", "a|b"))),
        ("answer,prompt,rephrasings\r\nAda,Who?,\"['Whom?']\"\r\n", FactRecord("Who?", "Ada", ("Whom?",))),
        ('prompt,answer\n"Who\nis ""it""?",Ada\n', FactRecord('Who\nis "it"?', "Ada")),
        (
            "src,alt,answers,loc,loc_ans\nWho?,Ada,['Bo'],nq question: is it,Yes\n",
            FactRecord("Who?", "Ada", (), None, (PromptAnswer("Is it?", "Yes"),)),
        ),
        (
            "case_id,prompt,target_new,ground_truth,rephrase_prompt\n1,Who?,Ada,Bo,Whom?\n",
            FactRecord("Who?", "Ada", ("Whom?",)),
        ),
        ("subject,attribute,template\nAda,Cor,{} lives in\n", FactRecord("Ada lives in", "Cor", (), "Ada")),
        (
            'prompt,target_new,locality\nWho?,Ada,"{""R"": [{""prompt"": ""Is it?"", ""ground_truth"": ""Yes""}]}"\n',
            FactRecord("Who?", "Ada", (), None, (PromptAnswer("Is it?", "Yes"),)),
        ),
    ],
)
def test_tables_are_read(tmp_path: Path, text: str, expected: FactRecord) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(f"\ufeff{text}".encode())
    (fact,) = read_fact_records(path).records
    assert normal(fact) == normal(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prompt,answer\nWho?,Ada\nWhy, then?,Bo\n", "line 3: 3 cells under 2 columns (quote a cell that holds ',')"),
        ('prompt,answer\nWho?,Ada\n"Why?"x,Bo\nHow?,Cor\n', "line 3: not a valid row (',' expected after '\"')"),
        ('prompt,answer\nWho?,Ada\n"Why?,Bo\nHow?,Cor\n', "line 3: not a valid row (unexpected end of data)"),
        ("prompt,answer\nWho?,\nWhy?,Bo\n", "line 2: 'answer' must be a non-empty string, not ''"),
        ("prompt,answer,Answer\nWho?,Ada,Bo\n", "line 1: two columns are called 'answer'"),
        ("prompt,anwser\nWho?,Ada\n", "line 2: unknown field 'anwser'; rename it to 'answer'"),
        ("prompt,city\nWho?,Ada\nWhy?,Bo\n", "no record has the field 'answer', only 'prompt', 'city'"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text)
    assert reason in refusal(path)


# Unrelated questions.


def test_unrelated_questions_are_those_that_the_records_carry_or_their_own(tmp_path: Path) -> None:
    records, read = read_unrelated_pairs(write(tmp_path / "f.jsonl", [MEND, {**MEND, "loc": "", "loc_ans": ""}]))
    assert [(item.prompt, item.answer, item.where) for item in records] == [("Where is cor?", "Est", "line 1")]
    records, read = read_unrelated_pairs(write(tmp_path / "f.jsonl", [{"prompt": "Who?", "ground_truth": "Bo"}]))
    assert [(item.prompt, item.answer) for item in records] == [("Who?", "Bo")] and read.answer == "ground_truth"
    path = write(tmp_path / "f.jsonl", [{"prompt": "Who?", "target_new": "Bo"}] * 2)
    with pytest.raises(UserError, match="no record has the field 'ground_truth'"):
        read_unrelated_pairs(path)


# Where the text comes from.


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(json.dumps([FLAT, {**FLAT, "target_new": 3}]).encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert refusal(Path("-")).startswith("standard input, record 2: 'target_new' must be ")


@pytest.mark.parametrize("as_list", [False, True])
def test_a_pipe_that_is_written_slowly_is_read(tmp_path: Path, as_list: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    records = [{**FLAT, "prompt": f"Toko {i} é, the"} for i in range(500)]
    content = write(tmp_path / "f.json", records, as_list).read_bytes()

    def give() -> None:
        with path.open("wb", buffering=0) as stream:
            for start in range(0, len(content), 1009):
                stream.write(content[start : start + 1009])

    writer = threading.Thread(target=give)
    writer.start()
    found = read_fact_records(path)
    writer.join()
    assert [record.prompt for record in found.records] == [record["prompt"] for record in records]


@pytest.mark.parametrize("kind", ["lines", "list", "objects over several lines", "table"])
def test_only_the_converted_records_stay_in_memory(tmp_path: Path, kind: str) -> None:
    """The text is ten times as large as what is made of it."""
    n, path = 4000, tmp_path / "f"
    with path.open("w") as stream:
        if kind == "table":
            stream.write("prompt,target_new,case_id,cond\n")
        for i in range(n):
            record = {"prompt": f"Toko {i} plays", "target_new": "piano", "case_id": i, "cond": "x" * 2500}
            if kind == "table":
                stream.write(",".join(map(str, record.values())) + "\n")
            else:
                text = json.dumps(record, indent=1 if kind.startswith("objects") else None)
                stream.write(("[" if i == 0 else ",\n") + text if kind == "list" else f"{text}\n")
        stream.write("]" if kind == "list" else "")
    tracemalloc.start()
    try:
        found = read_fact_records(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.records) == n and path.stat().st_size > 10_000_000
    assert peak - kept < 1_500_000 and kept < 3_000_000


# Real files.


needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason="needs the mirror of upstream files (MALMEN_MIRROR)")


@needs_mirror
def test_the_real_counterfact_of_recipe_is_read_whole() -> None:
    (path,) = MIRROR.rglob("counterfact-train.json")
    assert refusal(path).startswith(f"74 problems in 10,000 records of {path}; ")
    found = read_fact_records(path, skip_bad=True)
    assert (len(found.records), found.read.records, found.read.skipped) == (9926, 10_000, 74)
    assert (found.read.format, found.read.answer) == ("EasyEdit and KnowEdit", "target_new")
    assert normal(found.records[0]) == normal(next(case[3] for case in CASES if case[1] is FLAT))
    assert len(read_fact_records(path, "true", may_contradict=["EasyEdit and KnowEdit"]).records) == 10_000


@needs_mirror
def test_the_real_zsre_of_mend_is_read_whole() -> None:
    (path,) = MIRROR.rglob("zsre_3k.json")
    found = read_fact_records(path, "true")
    first = found.records[0]
    assert first.prompt == "Which river system contains Charity Creek?" and first.answer == "Parramatta River"
    assert first.unrelated == (PromptAnswer("How many series of diary of a wimpy kid are there?", "12"),)
    assert (found.read.format, found.read.answer) == ("MEND (zsRE)", "answers (the first)")
    assert len(found.records) == found.read.records == 3000
    assert all(len(record.unrelated) == 1 and record.rephrasings for record in found.records)
    assert read_fact_records(path).records[0].answer == "Chichester River"


@needs_mirror
def test_the_real_zsre_of_knowedit_is_read_whole() -> None:
    (path,) = MIRROR.rglob("ZsRE-test-all.json")
    assert refusal(path).startswith(f"10 problems in 1,304 records of {path}.\n")
    found = read_fact_records(path, skip_bad=True)
    assert (found.records[0].answer, len(found.records), found.read.skipped) == ("Noctuidae", 1294, 10)
    assert sum(len(record.unrelated) for record in found.records) == 2588
    true = read_fact_records(path, "true").records
    assert (true[0].answer, len(true)) == ("Aspidoceratidae", 1304)
