"""Facts of one's own, to be edited into a model: JSON lines of prompt, answer and, if wished, rephrasings, subject."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""By task, questions on general knowledge: unrelated to what people edit."""


@dataclass(frozen=True)
class Fact:
    """A prompt with the answer that is to be given to it, and to its rephrasings.

    Attributes:
        place: file and line, for messages.
        pair: prompt and answer, without blanks around them.
        rephrasings: other prompts with the same answer.
        subject: what the fact is about, as the prompt says it; None if that is not stated.
    """

    place: str
    pair: PromptAnswer
    rephrasings: tuple[str, ...] = ()
    subject: str | None = None

    def rephrased(self) -> list["Fact"]:
        """Return the same fact in each of its rephrasings."""
        return [Fact(self.place, PromptAnswer(prompt, self.pair.answer)) for prompt in self.rephrasings]

    def edit_tuple(self, unrelated: PromptAnswer) -> EditTuple:
        """Return the fact as an edit tuple; without rephrasings, the prompt is equivalent to itself only."""
        equivalent = self.rephrasings or (self.pair.prompt,)
        return EditTuple(self.place, self.pair, equivalent, unrelated, self.subject)


def read_facts(path: Path) -> list[Fact]:
    """Read a file of facts, in which no prompt may have two answers; a line that repeats an earlier one is left out.

    Raises:
        UserError: naming the file and the line that is malformed or contradicts another.
    """
    facts = read_lines(path, {"prompt", "answer", "rephrasings", "subject"})
    refuse_contradictions(facts)
    different: dict[object, Fact] = {}
    for fact in facts:
        different.setdefault((fact.pair, fact.rephrasings, fact.subject), fact)
    if repeated := len(facts) - len(different):
        lines = counted(repeated, "line repeats", "lines repeat")
        logger.warning("%s: %s an earlier one; each fact is edited once.", path, lines)
    return list(different.values())


def read_unrelated(path: Path) -> list[Fact]:
    """Read a file of prompts and answers that an edit should leave alone; errors as in :func:`read_facts`."""
    return read_lines(path, {"prompt", "answer"})


def read_lines(path: Path, fields: set[str]) -> list[Fact]:
    """Read one fact per line, of these fields."""
    facts = []
    for number, record in enumerate_jsonl(path, own=True):
        place = f"{path}, line {number}"
        try:
            facts.append(fact_from_json(record, place, fields))
        except (KeyError, ValueError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{place}: {reason}; correct the line.") from None
    if not facts:
        raise UserError(f'{path} is empty; write one {{"prompt": ..., "answer": ...}} per line into it.')
    return facts


def fact_from_json(record: dict[str, Any], place: str, fields: set[str]) -> Fact:
    """Build a fact; raise ``KeyError`` or ``ValueError`` if the record is malformed or has other fields."""
    unknown = sorted(set(record) - fields)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r} (known are {', '.join(sorted(fields))})")
    pair = PromptAnswer(record["prompt"], record["answer"])
    rephrasings = record.get("rephrasings", [])
    if not isinstance(rephrasings, list) or not all(map(is_text, rephrasings)):
        raise ValueError(f"'rephrasings' must be a list of non-empty strings, not {rephrasings!r}")
    subject = record.get("subject")
    if subject is not None and not (is_text(subject) and subject.strip() in pair.prompt):
        raise ValueError(f"'subject' must be a part of the prompt {pair.prompt!r}, not {subject!r}")
    return Fact(
        place,
        PromptAnswer(pair.prompt.strip(), pair.answer.strip()),
        tuple(rephrasing.strip() for rephrasing in rephrasings),
        subject and subject.strip(),
    )


def refuse_contradictions(facts: Iterable[Fact]) -> None:
    """Raise a :class:`UserError` if one prompt occurs with two answers."""
    first: dict[str, Fact] = {}
    for fact in facts:
        earlier = first.setdefault(fact.pair.prompt, fact)
        if earlier.pair.answer != fact.pair.answer:
            raise UserError(
                f"{fact.place}: the prompt {fact.pair.prompt!r} has the answer {fact.pair.answer!r} here but "
                f"{earlier.pair.answer!r} in {earlier.place}; keep one of them."
            )
