"""Facts to edit into a model, and unrelated questions: read from a file, or made in Python."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from malmen.config.base import Answers, TaskName
from malmen.data.formats import FactRecord, ReadFrom, contradictions, read_fact_records, read_unrelated_pairs
from malmen.data.matching import find
from malmen.data.parsing import key
from malmen.data.tuples import EditTuple, PromptAnswer, is_text
from malmen.data.user_text import named
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
        unrelated: prompts, with answers, that the edit should not change, if the fact's record has some.
        file: the file that the fact was read from; None if it was made in Python.
        read: the format of this file, and what was read from it.
        where: its place in the file, such as "line 3".

    Raises:
        ValueError: if a text is empty.
    """

    prompt: str
    answer: str
    rephrasings: Sequence[str] = ()
    subject: str | None = None
    unrelated: Sequence[PromptAnswer] = field(default=(), repr=False)
    file: Path | None = field(default=None, repr=False)
    read: ReadFrom | None = field(default=None, repr=False, compare=False)
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

    def carried(self) -> list["Fact"]:
        """Return the unrelated prompts of the fact's record as questions."""
        return [Fact(pair.prompt, pair.answer, file=self.file, where=self.where) for pair in self.unrelated]

    def edit_tuple(self, unrelated: PromptAnswer) -> EditTuple:
        """Return the fact as an edit tuple; without rephrasings, only the prompt is equivalent to itself."""
        equivalent = tuple(self.rephrasings) or (self.prompt,)
        return EditTuple(self.place, self.pair, equivalent, unrelated, self.stated_subject)


def as_written(subject: str, prompt: str) -> str:
    """Return a subject as a prompt writes it; as it is given if the prompt does not contain it."""
    found = find(subject, prompt)
    return prompt[slice(*found)] if found else subject


def read_facts(path: Path, answers: Answers = "new", skip_bad: bool = False) -> list[Fact]:
    """Read facts from a file in any format of :mod:`malmen.data.formats`; a repeated fact is read once.

    Args:
        path: the file; ``-`` is standard input.
        answers: which answer is taken where a record has two.
        skip_bad: leave out records that are malformed or contradict an earlier one.

    Raises:
        UserError: if records are malformed, or give one prompt two answers; names the file and all of their lines.
    """
    found = read_fact_records(path, answers, skip_bad)
    different: dict[object, Fact] = {}
    for record in found.records:
        fact = fact_of(record, named(path), found.read)
        different.setdefault((fact.pair, fact.rephrasings, fact.subject, fact.unrelated), fact)
    if repeated := len(found.records) - len(different):
        logger.warning(
            "%s: %s an earlier line; each fact is edited once.",
            named(path),
            counted(repeated, "line repeats", "lines repeat"),
        )
    return list(different.values())


def read_unrelated(path: Path, skip_bad: bool = False) -> list[Fact]:
    """Read prompts and answers that an edit should not change, from a file in any format.

    Args:
        path: the file; ``-`` is standard input.
        skip_bad: leave out records that are malformed.

    Raises:
        UserError: if records are malformed; names the file and all of their lines.
    """
    records, read = read_unrelated_pairs(path, skip_bad)
    return [fact_of(replace(record, unrelated=()), named(path), read) for record in records]


def fact_of(record: FactRecord, file: Path, read: ReadFrom) -> Fact:
    """Return the fact of a record."""
    return Fact(
        record.prompt, record.answer, record.rephrasings, record.subject, record.unrelated, file, read, record.where
    )


def refuse_contradictions(facts: Sequence[Fact]) -> None:
    """Raise one :class:`UserError` for all prompts that have two answers."""
    refuse_all(list(contradictions(facts, lambda fact: fact.place).values()), counted(len(facts), "fact"))


def file_of(facts: Sequence[Fact]) -> str | None:
    """Return the file that facts were read from; None if there are none, or they were made in Python."""
    return str(facts[0].file) if facts and facts[0].file else None


def general_questions(task: TaskName, facts: Sequence[Fact]) -> list[Fact]:
    """Return the questions of general knowledge for a task, without those that the facts edit."""
    edited = edited_prompts(facts)
    return [question for question in read_unrelated(GENERAL_KNOWLEDGE[task]) if key(question.prompt) not in edited]


def edited_prompts(facts: Sequence[Fact]) -> set[str]:
    """Return all prompts and rephrasings of facts, in the form in which questions are compared."""
    return {key(prompt) for fact in facts for prompt in (fact.prompt, *fact.rephrasings)}


def carried_questions(facts: Sequence[Fact]) -> list[Fact]:
    """Return the unrelated prompts of the facts' records, each once, without those that the facts edit."""
    edited = edited_prompts(facts)
    different = {question.pair: question for fact in facts for question in fact.carried()}
    questions = [question for question in different.values() if key(question.prompt) not in edited]
    if different:
        note = "The unrelated questions are the %d of the facts' own records, without %d that other facts edit."
        logger.info(note, len(questions), len(different) - len(questions))
    return questions
