"""FEVER and zsRE in the format of KILT (``fever-*-kilt.jsonl``, ``structured_zeroshot-*-kilt.jsonl``).

A line is a record ``{id, input, output: [{answer, provenance}], meta}``. FEVER's input is a claim and its answer the
label. zsRE's input is "subject [SEP] relation", and ``meta.template_questions`` asks for the answer in several ways;
each of these questions is edited, as in De Cao et al. (2021).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from malmen.data.fever import OPPOSITE
from malmen.data.parsing import reading, tidy
from malmen.data.tuples import PromptAnswer, enumerate_jsonl, is_text
from malmen.data.zsre import question_id

SEPARATOR = " [SEP] "
T = TypeVar("T")


@dataclass(frozen=True)
class Original:
    """A prompt to be rephrased, with its correct answer.

    ``subject`` is what the prompt is about (for a claim, the first Wikipedia page given as evidence), ``relation`` is
    what a question asks about it; None if the source does not say.
    """

    id: str
    prompt: str
    answer: str
    subject: str | None = None
    relation: str | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless all given fields are text."""
        for name, value in vars(self).items():
            if not (is_text(value) or (value is None and name in ("subject", "relation"))):
                raise ValueError(f"{name!r} must be a non-empty string, not {value!r}")

    @property
    def pair(self) -> PromptAnswer:
        """The prompt with its correct answer."""
        return PromptAnswer(self.prompt, self.answer)


def read_records(path: Path, parse: Callable[[dict[str, Any]], T], remedy: str = "download the file again") -> list[T]:
    """Read a file of records; a malformed one is a :class:`UserError` with file, line and remedy."""
    items = []
    for number, record in enumerate_jsonl(path):
        with reading(path, f"line {number}", remedy):
            items.append(parse(record))
    return items


def claim(record: Mapping[str, Any]) -> list[Original]:
    """Read a claim of FEVER; raise Key-, Type- or ``ValueError`` if it is malformed."""
    answer = first_answer(record)
    if answer not in OPPOSITE:
        raise ValueError(f"the label {answer!r} is neither SUPPORTS nor REFUTES")
    evidence = (place for item in record["output"] for place in item.get("provenance") or ())
    title = next((tidy(place["title"]) for place in evidence if place.get("title")), None)
    return [Original(f"fever-{record['id']}", tidy(record["input"]), answer, title)]


def questions(record: Mapping[str, Any]) -> list[Original]:
    """Read the questions of a record of zsRE; raise Key-, Type- or ``ValueError`` if it is malformed."""
    subject, separator, relation = record["input"].partition(SEPARATOR)
    if not separator:
        raise ValueError(f"expected a subject and a relation, found {record['input']!r}")
    answer = first_answer(record)
    prompts = [tidy(question) for question in record["meta"]["template_questions"]]
    return [Original(question_id(prompt), prompt, answer, tidy(subject), tidy(relation)) for prompt in prompts]


def first_answer(record: Mapping[str, Any]) -> str:
    """Return the first answer in a record's output; some items hold only evidence."""
    answers = [item["answer"] for item in record["output"] if item.get("answer")]
    if not answers:
        raise ValueError("the output holds no answer")
    return tidy(answers[0])
