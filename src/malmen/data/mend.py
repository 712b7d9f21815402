"""Datasets from zsRE in the format of MEND's and MEMIT's authors (``zsre_mend_train.json``, ``zsre_mend_eval.json``).

A file is a JSON list. A record holds the question ``src`` about a ``subject``, its correct ``answers``, a ``rephrase``,
a wrong answer ``alt`` that a model gave, and an unrelated question of NQ, ``loc`` ("nq question: ...", lower case,
without a question mark) with its answer ``loc_ans``; ``pred`` and ``cond`` are not used. All records of the evaluation
file are validation tuples; those of the training file are divided into training and tuning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from malmen.data import zsre
from malmen.data.authors import TupleFiles, deal, deal_alternatives, write_counts, write_questions
from malmen.data.nq import NQ_PREFIX, as_question
from malmen.data.parsing import different, key, perhaps_empty, tidy
from malmen.data.tuples import PromptAnswer, write_dataset


@dataclass(frozen=True)
class MendQuestion:
    """A record: a question with its correct answer, a wrong one (perhaps empty), and an unrelated question."""

    question: zsre.Question
    alternative: str
    unrelated: PromptAnswer


def mend_question(name: str, record: Mapping[str, Any]) -> MendQuestion:
    """Read a record; its rephrasing and wrong answer may be empty.

    Raises:
        KeyError, TypeError, ValueError: if it is malformed.
    """
    question = replace(zsre.mends_question(record), id=f"zsre-{name}")
    unrelated = as_question(tidy(record["loc"]).removeprefix(NQ_PREFIX))
    return MendQuestion(
        replace(question, rephrasings=different(question.prompt, question.rephrasings)),
        perhaps_empty(record["alt"]),
        PromptAnswer(unrelated, tidy(record["loc_ans"])),
    )


def build_zsre(files: TupleFiles, folder: Path, seed: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Write the zsRE dataset to ``folder``: edits to the correct answers, with the unrelated tuples of the files.

    Arguments and result are those of :func:`malmen.data.authors.build_fever`.

    Raises:
        UserError: if a file is missing or malformed, or no unrelated prompt is left for training.
    """
    parts = files.read(mend_question)
    kept = [[fact for fact in part if fact.question.rephrasings] for part in parts]
    train, evaluation = ([zsre.edit_tuple(fact.question, fact.unrelated) for fact in part] for part in kept)
    splits, shared = files.part_unrelated(deal(train, evaluation, shares, seed), seed)
    write_questions(folder, splits)
    return write_counts(folder, parts, dropped(parts, kept, "no_rephrasing") | shared, splits)


def build_zsre_alternative(files: TupleFiles, folder: Path, seed: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Write the zsRE dataset of Table 3 to ``folder``: edits to the files' wrong answers, unrelated tuples of zsRE.

    The questions about part of the subjects are the unrelated tuples (appendix A.7). Fine-tuning is on the correct
    answers of all. Arguments, result and errors are those of :func:`build_zsre`.
    """
    parts = files.read(mend_question)
    rephrased = [[fact for fact in part if fact.question.rephrasings] for part in parts]
    kept = [
        [fact for fact in part if fact.alternative and key(fact.alternative) != key(fact.question.answer)]
        for part in rephrased
    ]
    answers = {fact.question.id: fact.alternative for part in kept for fact in part}

    def wrong(questions: Sequence[zsre.Question], _: int) -> list[zsre.Question]:
        return [replace(question, answer=answers[question.id]) for question in questions]

    train, evaluation = ([fact.question for fact in part] for part in kept)
    splits, pool = deal_alternatives(train, evaluation, wrong, shares, seed)
    finetune = list(
        dict.fromkeys(PromptAnswer(question.prompt, question.answer) for question in chain(train, evaluation))
    )
    write_dataset(folder, splits, finetune, [[f"{pair.prompt} {pair.answer}" for pair in finetune]])
    counts = dropped(parts, rephrased, "no_rephrasing") | dropped(rephrased, kept, "no_alternative")
    return write_counts(folder, parts, counts | {"unrelated_kept": len(pool)}, splits)


def dropped(
    before: Sequence[Sequence[MendQuestion]], after: Sequence[Sequence[MendQuestion]], reason: str
) -> dict[str, int]:
    """Return how many facts of both files were dropped for a reason."""
    return {f"dropped_{reason}": sum(map(len, before)) - sum(map(len, after))}
