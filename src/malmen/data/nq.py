"""NQ-open and its EfficientQA variants: questions with short answers, the unrelated tuples of zsRE (paper, 5.1)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from malmen.data.parsing import key, reading, tidy
from malmen.data.tuples import PromptAnswer, enumerate_jsonl

NQ_PREFIX = "nq question: "
"""What MEND's files put before a question."""


def read_questions(path: Path) -> list[PromptAnswer]:
    """Read a file of NQ-open; a malformed record is a :class:`UserError` naming file and line.

    All variants hold ``question`` and a list ``answer``. The first answer is used; the judged answers in the test file
    of EfficientQA are not.
    """
    pairs = []
    for number, record in enumerate_jsonl(path):
        with reading(path, f"line {number}"):
            pairs.append(PromptAnswer(as_question(tidy(record["question"])), first_answer(record["answer"])))
    return pairs


def as_question(text: str) -> str:
    """Give an upstream question (lower case, no question mark) a capital and a question mark."""
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else "?")


def first_answer(answers: Any) -> str:
    """Return the first of a list of answers; raise ``TypeError`` or ``ValueError`` if there is none."""
    if not isinstance(answers, list):
        raise TypeError(f"expected a list of answers, found {answers!r}")
    if not answers:
        raise ValueError("the list of answers is empty")
    return tidy(answers[0])


def select(pairs: Iterable[PromptAnswer]) -> tuple[list[PromptAnswer], dict[str, int]]:
    """Keep one pair per question: the first whose answer has a letter or a digit.

    Returns:
        The pairs, in order, and how many were read, kept, and dropped as unanswered (the answer is "---") or repeated.
    """
    everything = list(pairs)
    answered = [pair for pair in everything if any(map(str.isalnum, pair.answer))]
    first: dict[str, PromptAnswer] = {}
    for pair in answered:
        first.setdefault(key(pair.prompt), pair)
    counts = {
        "read": len(everything),
        "dropped_unanswered": len(everything) - len(answered),
        "dropped_repeated": len(answered) - len(first),
        "kept": len(first),
    }
    return list(first.values()), counts
