"""Facts to edit into a model, and unrelated questions: read from JSON lines, or made in Python."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from malmen.config.base import TaskName
from malmen.data.tuples import EditTuple, PromptAnswer, enumerate_jsonl, is_text
from malmen.errors import UserError
from malmen.runtime.text import counted

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
        subject: the part of the prompt that says what the fact is about; only MEMIT needs it.
        file: the file that the fact was read from; None if it was made in Python.
        line: its line in the file, counted from 1.

    Raises:
        ValueError: if a text is empty, or the subject is not a part of the prompt.
    """

    prompt: str
    answer: str
    rephrasings: Sequence[str] = ()
    subject: str | None = None
    file: Path | None = field(default=None, repr=False)
    line: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        """Check the texts and remove the spaces around them."""
        PromptAnswer(self.prompt, self.answer)
        if not isinstance(self.rephrasings, list | tuple) or not all(map(is_text, self.rephrasings)):
            raise ValueError(f"'rephrasings' must be a list of non-empty strings, not {self.rephrasings!r}")
        subject = self.subject
        if subject is not None and not (is_text(subject) and subject.strip() in self.prompt):
            raise ValueError(f"'subject' must be a part of the prompt {self.prompt!r}, not {subject!r}")
        stripped = {
            "prompt": self.prompt.strip(),
            "answer": self.answer.strip(),
            "rephrasings": tuple(text.strip() for text in self.rephrasings),
            "subject": subject and subject.strip(),
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
        return f"{self.file}, line {self.line}" if self.file else f"The fact {self.prompt!r}"

    def rephrased(self) -> list["Fact"]:
        """Return one fact for each rephrasing, with the rephrasing as its prompt."""
        return [Fact(prompt, self.answer, file=self.file, line=self.line) for prompt in self.rephrasings]

    def edit_tuple(self, unrelated: PromptAnswer) -> EditTuple:
        """Return the fact as an edit tuple; without rephrasings, only the prompt is equivalent to itself."""
        equivalent = tuple(self.rephrasings) or (self.prompt,)
        return EditTuple(self.place, self.pair, equivalent, unrelated, self.subject)


def read_facts(path: Path) -> list[Fact]:
    """Read JSON lines of facts; a repeated fact is read once.

    Raises:
        UserError: if a line is malformed, or gives a prompt another answer than an earlier line; names file and line.
    """
    facts = read_lines(path, {"prompt", "answer", "rephrasings", "subject"})
    refuse_contradictions(facts)
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
    """Read JSON lines of prompts and answers that an edit should not change.

    Raises:
        UserError: if a line is malformed; names file and line.
    """
    return read_lines(path, {"prompt", "answer"})


def read_lines(path: Path, fields: set[str]) -> list[Fact]:
    """Read one fact from each line; a line may have these fields."""
    facts = []
    for number, record in enumerate_jsonl(path, own=True):
        try:
            if unknown := sorted(set(record) - fields):
                raise ValueError(f"unknown field {unknown[0]!r} (known fields: {', '.join(sorted(fields))})")
            rephrasings, subject = record.get("rephrasings", []), record.get("subject")
            facts.append(Fact(record["prompt"], record["answer"], rephrasings, subject, path, number))
        except (KeyError, ValueError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}, line {number}: {reason}; correct the line.") from None
    if not facts:
        raise UserError(f'{path} is empty; write lines such as {{"prompt": "...", "answer": "..."}} into it.')
    return facts


def refuse_contradictions(facts: Iterable[Fact]) -> None:
    """Raise a :class:`UserError` if one prompt has two answers."""
    first: dict[str, Fact] = {}
    for fact in facts:
        earlier = first.setdefault(fact.prompt, fact)
        if earlier.answer != fact.answer:
            raise UserError(
                f"{fact.place}: the prompt {fact.prompt!r} has the answer {fact.answer!r} here but "
                f"{earlier.answer!r} in {earlier.place}; keep one of them."
            )
