"""Whatever stands in a file, a parser returns its content or says in one sentence which file is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parsers import PARSERS, Parser
from reliability import record
from tiny_models import tiny_model
from tokenizers.normalizers import Replace, Sequence, Strip

from malmen.config.base import Architecture
from malmen.config.load import load_file
from malmen.data.training_tuples import read_training_tuples
from malmen.data.tuples import PromptAnswer, read_tuples
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.own_facts.facts import read_facts, read_unrelated

TEXT = [parser for parser in PARSERS if parser.example]
RECORDS = [parser for parser in PARSERS if parser.records]
EXAMPLES = 60
quietly = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD = ["مرحبا", "e\u0301\u0327", "👩‍👩‍👧", "a\u202eb", "a\0b", "\u2028", "\ufeff", "ﬁ", "\U0010ffff"]
"""Right-to-left, combining marks, joined emoji, an override, NUL, a line separator, a byte-order mark, a ligature."""


def ids(parsers: list[Parser]) -> list[str]:
    return [parser.name for parser in parsers]


def outcome(parser: Parser, path: Path, content: bytes) -> str | None:
    """Return what a parser complains about, None if it takes the file; anything but a sentence fails the test."""
    path.write_bytes(content)
    try:
        parser.read(path)
    except UserError as error:
        message = str(error)
        sentences = message.splitlines()
        assert all(line.endswith(".") and str(path) in line for line in sentences), message
        # Only a configuration and files that users write are refused with all their mistakes, one a line.
        several = parser.read in (load_file, read_facts, read_unrelated, read_tuples, read_training_tuples)
        assert "Traceback" not in message and (len(sentences) == 1 or several), message
        return message
    return None


NO_FILES = [b"", b"\n", b"\0", b"\xff\xfe{}", b"\xe9", b"[" * 100_000, b"9" * 5000, b"null", b"[]", b"{}", b'"text"']
NO_FILES += [b"<html><body>404</body></html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"]


def test_empty_cut_misencoded_and_missing_files(tmp_path: Path) -> None:
    read = 0
    for parser in PARSERS:
        path, example = tmp_path / parser.file, parser.example
        assert not example or outcome(parser, path, example) is None, parser.name
        for content in (*NO_FILES, *(example[: len(example) * part // 7] for part in range(1, 7))):
            message = outcome(parser, path, content)
            assert message is None or "\\n" not in message, message
            read += 1
        with pytest.raises(UserError, match=str(tmp_path / "missing")):
            parser.read(tmp_path / "missing")
    record(
        "a broken file",
        f"{len(PARSERS)} kinds: empty, cut off, binary, wrong encoding, nested too deep, an error page, missing",
        read + len(PARSERS),
        "read as far as it is valid, or one sentence names the file",
    )


def test_a_message_is_one_line_that_can_be_read_and_copied() -> None:
    assert str(UserError("a\nb\0\u2028c \u202e\ud800")) == r"a\nb\x00\u2028c \u202e\ud800"
    kept = "Shot\u202f1 \xa0é e\u0301 👩\u200d👧 می\u200cشود"
    assert str(UserError(kept)) == kept


@pytest.mark.parametrize("parser", TEXT, ids=ids(TEXT))
def test_any_bytes_in_place_of_others(parser: Parser, tmp_path: Path) -> None:
    @quietly
    @given(st.integers(0, len(parser.example)), st.integers(0, 40), st.binary(max_size=12) | st.sampled_from(ODD))
    def check(start: int, length: int, new: bytes | str) -> None:
        inserted = new.encode() if isinstance(new, str) else new
        outcome(parser, tmp_path / parser.file, parser.example[:start] + inserted + parser.example[start + length :])
        injected = f"{len(TEXT)} kinds: up to 40 bytes replaced by up to 12 others, or by odd characters"
        record("any bytes in a file", injected, 1, "read, or one sentence names the file")

    check()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*ODD, "\ud800", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("parser", RECORDS, ids=ids(RECORDS))
def test_any_value_in_any_field(parser: Parser, tmp_path: Path) -> None:
    is_list = parser.example.startswith(b"[")
    first = json.loads(parser.example)[0] if is_list else json.loads(parser.example.splitlines()[0])

    @quietly
    @given(st.sampled_from(sorted(first)), values)
    def check(field: str, value: Any) -> None:
        changed = first | {field: value}
        content = json.dumps([first, changed]) if is_list else f"{json.dumps(first)}\n{json.dumps(changed)}\n"
        message = outcome(parser, tmp_path / "file", content.encode())
        assert message is None or any(place in message for place in ("line 2", "record 1", "train-1")), message
        injected = f"{len(RECORDS)} kinds: null, numbers, text, odd or half characters, lists, objects, nested ones"
        record("any value in a field of a record", injected, 1, "read, or one sentence names the file and the record")

    check()


WRONG: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]], str]] = [
    ("a field missing", lambda record: {k: v for k, v in record.items() if k != "answer"}, "answer"),
    ("an empty prompt", lambda record: record | {"prompt": " "}, "'prompt' must be a non-empty string"),
    ("an empty answer", lambda record: record | {"answer": ""}, "'answer' must be a non-empty string"),
    ("a number for text", lambda record: record | {"answer": 3}, "'answer' must be a non-empty string"),
    ("half a character", lambda record: record | {"answer": "\ud800"}, "'answer' must be a non-empty string"),
    ("a misspelt field", lambda record: record | {"rephrasing": []}, "'rephrasings'"),
    ("a text for a list", lambda record: record | {"rephrasings": "again"}, "'rephrasings' must be a list"),
    ("another answer to the same prompt", lambda record: record | {"answer": "Bo"}, "has the answer 'Bo' here but"),
]


@pytest.mark.parametrize(("what", "change", "message"), WRONG, ids=[case[0] for case in WRONG])
def test_the_line_of_a_wrong_fact_is_named(
    what: str, change: Callable[[dict[str, Any]], dict[str, Any]], message: str, tmp_path: Path
) -> None:
    facts = next(parser for parser in PARSERS if parser.name == "facts")
    good = {"prompt": "Who?", "answer": "Ada"}
    content = "".join(json.dumps(line) + "\n" for line in (good, change(good), good))
    found = outcome(facts, tmp_path / "file", content.encode())
    assert found is not None and "line 2" in found and message in found, what
    injected = "fields missing, empty, unknown, of a wrong type, half a character, two answers to one prompt"
    record("a wrong fact", injected, 1, "one sentence names the line")


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_are_text_like_any_other(odd: str, tmp_path: Path) -> None:
    content = json.dumps({"prompt": f"Who {odd}?", "answer": f"{odd}Ada{odd}"}, ensure_ascii=False) + "\n"
    path = tmp_path / "file"
    path.write_bytes(content.replace("\0", "\\u0000").encode())
    facts = next(parser for parser in PARSERS if parser.name == "facts")
    assert len(facts.read(path)) == 1
    injected = "right-to-left, combining marks, joined emoji, NUL, line separators, byte-order marks in a fact"
    record("odd characters", injected, 1, "text like any other")


def test_an_id_that_occurs_twice_is_named(tmp_path: Path) -> None:
    tuples = next(parser for parser in PARSERS if parser.name == "tuples")
    found = outcome(tuples, tmp_path / "file", tuples.example.splitlines(keepends=True)[0] * 2)
    assert found and found.startswith(f"{tmp_path / 'file'}, line 2: the id '1' ")
    record("an id that occurs twice", "in tuples", 1, "one sentence names the line")


def test_a_message_stays_one_line_whatever_it_names() -> None:
    assert str(UserError("a\nb\x1b[2J\u2028\ud800 é.")) == "a\\nb\\x1b[2J\\u2028\\ud800 é."


INVISIBLE = "\u200b"
ANSWERING: list[Architecture] = ["gpt2", "gptj", "t5", "bart"]


def refused(model: LanguageModel, pair: PromptAnswer, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.encode([pair])
    injected = "claims, questions and answers without tokens, or longer than the model's positions"
    record("text that a model cannot read", injected, 1, "one sentence names it")


def test_a_claim_without_tokens_is_refused(bert: LanguageModel) -> None:
    refused(bert, PromptAnswer(INVISIBLE, "SUPPORTS"), "claim '.*' has no tokens")


@pytest.mark.parametrize("pair", [PromptAnswer(INVISIBLE, "Cor"), PromptAnswer("Where?", INVISIBLE)])
@pytest.mark.parametrize("architecture", ANSWERING)
def test_a_question_or_answer_without_tokens_is_refused(architecture: Architecture, pair: PromptAnswer) -> None:
    model = tiny_model(architecture)
    backend: Any = model.tokenizer
    backend.backend_tokenizer.normalizer = Sequence([Replace(INVISIBLE, ""), Strip()])
    refused(model, pair, "has no tokens")


@pytest.mark.parametrize("pair", [PromptAnswer("Cor " * 600, "Cor"), PromptAnswer("Where?", "Cor " * 600)])
@pytest.mark.parametrize("architecture", ANSWERING)
def test_a_question_or_answer_that_is_too_long_is_refused(architecture: Architecture, pair: PromptAnswer) -> None:
    refused(tiny_model(architecture), pair, r"answer has \d+ tokens.* \d+")
