"""Files of facts of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from malmen.config.base import TaskName
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.own_facts.facts import GENERAL_KNOWLEDGE, Fact, general_questions, read_facts, read_unrelated

GOOD = '{"prompt": "Who?", "answer": "Ada"}'


def test_facts_are_read_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'{GOOD}\r\n{{"prompt": " Où? ", "answer": " Cor ", "rephrasings": ["Wo? "]}}\n', encoding="utf-8")
    first, second = read_facts(path)
    assert first == Fact("Who?", "Ada", file=path, where="line 1") and first.place == f"{path}, line 1"
    assert second == Fact("Où?", "Cor", ("Wo?",), file=path, where="line 2")
    assert second.rephrased() == [Fact("Wo?", "Cor", file=path, where="line 2")]


def test_facts_are_made_in_python() -> None:
    fact = Fact(" Who is Ada? ", "Bo ", [" Who was she?"], " Ada ")
    assert fact == Fact("Who is Ada?", "Bo", ("Who was she?",), "Ada") and "Who is Ada?" in fact.place
    with pytest.raises(ValueError, match="'answer'"):
        Fact("Who?", "")
    with pytest.raises(ValueError, match="'rephrasings'"):
        Fact("Who?", "Ada", "Who is it?")


def test_a_fact_is_an_edit_tuple_of_its_subject(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"prompt": "Who is Ada?", "answer": "Bo", "subject": " Ada "}\n', encoding="utf-8")
    (fact,) = read_facts(path)
    unrelated = PromptAnswer("Where?", "Cor")
    edit_tuple = fact.edit_tuple(unrelated)
    assert (edit_tuple.edit, edit_tuple.unrelated, edit_tuple.subject) == (fact.pair, unrelated, "Ada")
    assert edit_tuple.equivalent == ("Who is Ada?",)
    rephrased = Fact(fact.prompt, fact.answer, ("Who was she?",))
    assert rephrased.edit_tuple(unrelated).equivalent == ("Who was she?",)


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"prompt": "Where?"', "line 2: not valid JSON"),
        ('["Where?", "Cor"]', "line 2: expected a JSON object, found list"),
        ('{"prompt": "Where?"}', "line 2: field 'answer' is missing"),
        ('{"answer": "Cor"}', "line 2: field 'prompt' is missing"),
        ('{"prompt": "Where?", "answer": "Cor", "rephrasing": []}', "line 2: unknown field 'rephrasing'"),
        ('{"prompt": "Where?", "answer": "Cor", "answer": "Est"}', "line 2: not valid JSON (the field 'answer' occurs"),
        ('{"prompt": "Where?", "answer": 7}', "line 2: 'answer' must be a non-empty string, not 7"),
        ('{"prompt": "  ", "answer": "Cor"}', "line 2: 'prompt' must be a non-empty string"),
        ('{"prompt": "Where?", "answer": ""}', "line 2: 'answer' must be a non-empty string"),
        ('{"prompt": "Where?", "answer": "Cor", "rephrasings": "Wo?"}', "line 2: 'rephrasings' must be a list"),
        ('{"prompt": "Where?", "answer": "Cor", "rephrasings": [""]}', "line 2: 'rephrasings' must be a list"),
        ('{"prompt": "Who? ", "answer": "Bo"}', "line 2: the prompt 'Who?' has the answer 'Bo' here but 'Ada' in"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_facts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, {reason}") and message.endswith(".") and "\n" not in message


def test_a_fact_that_is_repeated_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "facts.jsonl"
    rephrased = '{"prompt": "Who?", "answer": "Ada", "rephrasings": ["Who is it?"]}'
    path.write_text(f"{GOOD}\n{rephrased}\n{GOOD}\n{rephrased}\n{GOOD}\n", encoding="utf-8")
    with caplog.at_level("WARNING", "malmen"):
        first, second = read_facts(path)
    assert (first.place, first.rephrasings) == (f"{path}, line 1", ())
    assert (second.place, second.rephrasings) == (f"{path}, line 2", ("Who is it?",))
    (message,) = caplog.messages
    assert message.startswith(f"{path}: 3 lines ")


@pytest.mark.parametrize("read", [read_facts, read_unrelated])
def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path, read: Callable[[Path], list[Fact]]) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'\ufeff{GOOD}\r\n\r\n{{"prompt": "Where?", "answer": "Cor"}}\n \n\n', encoding="utf-8")
    assert [fact.place for fact in read(path)] == [f"{path}, line 1", f"{path}, line 3"]


def test_a_file_without_facts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    for text in ("", "\n", "\ufeff\n \n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"facts\.jsonl is empty"):
            read_facts(path)
    with pytest.raises(UserError, match=r"other\.jsonl does not exist"):
        read_facts(tmp_path / "other.jsonl")


def test_unrelated_questions_have_no_rephrasings_and_may_contradict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "unrelated.jsonl"
    path.write_text(f'{GOOD}\n{{"prompt": "Who?", "answer": "Bo"}}\n', encoding="utf-8")
    assert len(read_unrelated(path)) == 2
    path.write_text('{"prompt": "Who?", "answer": "Ada", "rephrasings": ["Ada?"]}\n', encoding="utf-8")
    with caplog.at_level("WARNING", "malmen"):
        assert len(read_unrelated(path)) == 1
    assert f"{path}: ignored the rephrasings" in caplog.text


def test_general_knowledge_is_well_formed() -> None:
    assert set(GENERAL_KNOWLEDGE) == set(get_args(TaskName))
    for path in GENERAL_KNOWLEDGE.values():
        questions = read_unrelated(path)
        assert len({question.pair.prompt for question in questions}) == len(questions) >= 50
    labels = [claim.pair.answer for claim in read_unrelated(GENERAL_KNOWLEDGE["fact_checking"])]
    assert labels.count("SUPPORTS") == labels.count("REFUTES")


def test_a_question_of_general_knowledge_that_a_fact_edits_is_not_unrelated() -> None:
    edited = Fact("What is the capital of France?", "Lyon", ["what is the capital of japan"])
    prompts = {question.prompt for question in general_questions("question_answering", [edited])}
    assert len(prompts) == 48 and not prompts & {"What is the capital of France?", "What is the capital of Japan?"}
