"""Facts to edit into a model, and unrelated questions: read from a file, or made in Python."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from malmen.config.base import TaskName
from malmen.data.matching import find
from malmen.data.tuples import EditTuple, PromptAnswer, is_text
from malmen.data.user_files import Fields, Reading, read_records
from malmen.errors import UserError
from malmen.runtime.problems import refuse_all
from malmen.runtime.text import counted, short_repr

logger = logging.getLogger("malmen")

QUESTIONS = Path(__file__).with_name("general_questions.jsonl")
GENERAL_KNOWLEDGE: dict[TaskName, Path] = {
    "fact_checking": Path(__file__).with_name("general_claims.jsonl"),
    "question_answering": QUESTIONS,
    "sequence_to_sequence": QUESTIONS,
}
"""By task, questions of general knowledge, which are unrelated to most facts that people edit."""

QUESTION = Fields(("prompt", "answer"), (), '{"prompt": "...", "answer": "..."}')
"""The fields of an unrelated question."""
FACT = Fields(
    QUESTION.needed,
    ("rephrasings", "subject"),
    '{"prompt": "...", "answer": "...", "rephrasings": ["..."], "subject": "..."} (rephrasings and subject may be left '
    "out)",
)
"""The fields of a fact."""


@dataclass(frozen=True)
class Fact:
    """A prompt, and the answer that the edited model should give to it and to its rephrasings.

    Spaces around the texts are removed.

    Attributes:
        prompt: the question, or a claim for a fact checker.
        answer: the new answer; SUPPORTS or REFUTES for a fact checker.
        rephrasings: other prompts with the same answer.
        subject: what the fact is about, as the prompt writes it; only MEMIT needs it. It is found in spite of case,
            kinds of apostrophes, dashes and spaces, and composed or decomposed accents. One that is not found stays as
            it is given.
        file: the file that the fact was read from; None if it was made in Python.
        where: its place in the file, such as "line 3".

    Raises:
        ValueError: if a text is empty.
    """

    prompt: str
    answer: str
    rephrasings: Sequence[str] = ()
    subject: str | None = None
    file: Path | None = field(default=None, repr=False)
    where: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check the texts and remove the spaces around them."""
        PromptAnswer(self.prompt, self.answer)
        if not isinstance(self.rephrasings, list | tuple) or not all(map(is_text, self.rephrasings)):
            raise ValueError(f"'rephrasings' must be a list of non-empty strings, not {short_repr(self.rephrasings)}")
        subject = self.subject.strip() if self.subject else None
        stripped = {
            "prompt": self.prompt.strip(),
            "answer": self.answer.strip(),
            "rephrasings": tuple(text.strip() for text in self.rephrasings),
            "subject": as_written(subject, self.prompt) if subject else None,
        }
        for name, value in stripped.items():
            object.__setattr__(self, name, value)

    @property
    def pair(self) -> PromptAnswer:
        """Prompt and answer."""
        return PromptAnswer(self.prompt, self.answer)

    @property
    def place(self) -> str:
        """Where the fact stands, for messages."""
        return f"{self.file}, {self.where}" if self.file else f"The fact {short_repr(self.prompt)}"

    @property
    def stated_subject(self) -> str | None:
        """The subject, if the prompt contains it."""
        return self.subject if self.subject and self.subject in self.prompt else None

    def rephrased(self) -> list["Fact"]:
        """Return one fact for each rephrasing, with the rephrasing as its prompt."""
        return [Fact(prompt, self.answer, file=self.file, where=self.where) for prompt in self.rephrasings]

    def edit_tuple(self, unrelated: PromptAnswer) -> EditTuple:
        """Return the fact as an edit tuple; without rephrasings, only the prompt is equivalent to itself."""
        equivalent = tuple(self.rephrasings) or (self.prompt,)
        return EditTuple(self.place, self.pair, equivalent, unrelated, self.stated_subject)


def as_written(subject: str, prompt: str) -> str:
    """Return a subject as a prompt writes it; as it is given if the prompt does not contain it."""
    found = find(subject, prompt)
    return prompt[slice(*found)] if found else subject


def read_facts(path: Path) -> list[Fact]:
    """Read facts from JSON lines or a JSON list; a repeated fact is read once.

    Raises:
        UserError: if records are malformed, or give one prompt two answers; names the file and all of their lines.
    """
    reading = read_records(path, FACT, partial(fact_from_json, path=path))
    facts = nonempty(path, reading)
    refuse_all([*reading.problems, *contradictions(facts)], reading.checked)
    different: dict[object, Fact] = {}
    for fact in facts:
        different.setdefault((fact.pair, fact.rephrasings, fact.subject), fact)
    if repeated := len(facts) - len(different):
        logger.warning(
            "%s: %s an earlier line; each fact is edited once.",
            path,
            counted(repeated, "line repeats", "lines repeat"),
        )
    return list(different.values())


def read_unrelated(path: Path) -> list[Fact]:
    """Read prompts and answers that an edit should not change, from JSON lines or a JSON list.

    Raises:
        UserError: if records are malformed; names the file and all of their lines.
    """
    reading = read_records(path, QUESTION, partial(fact_from_json, path=path))
    questions = nonempty(path, reading)
    refuse_all(reading.problems, reading.checked)
    return questions


def nonempty(path: Path, reading: Reading[Fact]) -> list[Fact]:
    """Return what was read; raise :class:`UserError` if the file is empty."""
    if not (reading.items or reading.problems):
        raise UserError(f"{path} is empty; write lines such as {QUESTION.example} into it.")
    return reading.items


def fact_from_json(record: Mapping[str, Any], where: str, path: Path) -> Fact:
    """Build a fact; raise ``ValueError`` if its texts are malformed."""
    subject = record.get("subject")
    if not isinstance(subject, str | None):
        subject = json.dumps(subject)  # Only MEMIT looks at the subject, and refuses what is not a part of the prompt.
    return Fact(record["prompt"], record["answer"], record.get("rephrasings") or (), subject, path, where)


def refuse_contradictions(facts: Sequence[Fact]) -> None:
    """Raise one :class:`UserError` for all prompts that have two answers."""
    refuse_all(contradictions(facts), counted(len(facts), "fact"))


def contradictions(facts: Iterable[Fact]) -> list[str]:
    """Return a sentence for each fact whose prompt has another answer in an earlier one."""
    first: dict[str, Fact] = {}
    return [
        f"{fact.place}: the prompt {short_repr(fact.prompt)} has the answer {short_repr(fact.answer)} here but "
        f"{short_repr(earlier.answer)} in {earlier.place}; keep one of them."
        for fact in facts
        if (earlier := first.setdefault(fact.prompt, fact)).answer != fact.answer
    ]


def file_of(facts: Sequence[Fact]) -> str | None:
    """Return the file that facts were read from; None if there are none, or they were made in Python."""
    return str(facts[0].file) if facts and facts[0].file else None
