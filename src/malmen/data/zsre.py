"""zsRE questions in the formats of KnowEdit (``ZsRE-test-all.json``) and of MEND, and the edit tuples made from them.

Which field is the answer: KnowEdit's ``ground_truth`` and MEND's ``answers`` hold the correct answers ("What voice type
is Louise Grandjean?": soprano), ``target_new`` and ``alt`` a wrong one (mezzo soprano; some are broken, such as
" Gaulle"), which is not used. In the paper, zsRE edits demand the correct answer, so the edit's answer is the first of
these. The wrong answers of Table 3 are those of other questions (:func:`with_wrong_answers`).
"""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from malmen.data.nq import first_answer
from malmen.data.parsing import different, group_by_text, key, perhaps_empty, read_json_list, reading, tidy
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError


@dataclass(frozen=True)
class Question:
    """A question with its correct answer and rephrasings made by people or by translation.

    ``subject`` is what it asks about; None if the source does not say.
    """

    id: str
    subject: str | None
    prompt: str
    answer: str
    rephrasings: tuple[str, ...]


def read_questions(path: Path) -> list[Question]:
    """Read a file of zsRE, in either format; a malformed file or record is a :class:`UserError` naming file and record.

    Upstream has no ids: the id is a digest of the question.
    """
    questions = []
    for index, record in enumerate(read_json_list(path)):
        with reading(path, f"record {index}"):
            if not isinstance(record, dict):
                raise TypeError(f"expected a JSON object, found {type(record).__name__}")
            questions.append(mends_question(record) if "src" in record else knowedits_question(record))
    return questions


def knowedits_question(record: Mapping[str, Any]) -> Question:
    """Read a record of KnowEdit's; raise Key-, Type- or ``ValueError`` if it is malformed."""
    prompt, subject = tidy(record["prompt"]), tidy(record["subject"])
    answer, rephrasing = first_answer(record["ground_truth"]), tidy(record["rephrase_prompt"])
    return Question(question_id(prompt), subject, prompt, answer, (rephrasing,))


def mends_question(record: Mapping[str, Any]) -> Question:
    """Read a record of MEND's, whose rephrasing may be empty; errors are those of :func:`knowedits_question`."""
    prompt, subject = tidy(record["src"]), tidy(record["subject"])
    answer, rephrasing = first_answer(record["answers"]), perhaps_empty(record["rephrase"])
    return Question(question_id(prompt), subject, prompt, answer, (rephrasing,) if rephrasing else ())


def question_id(prompt: str) -> str:
    """Return an id that depends only on the question, without case, punctuation and spacing."""
    return f"zsre-{hashlib.sha256(key(prompt).encode()).hexdigest()[:12]}"


def select(questions: Iterable[Question]) -> tuple[list[Question], dict[str, int]]:
    """Merge records with the same question, and keep those with a rephrasing that differs from it.

    Returns:
        The questions, in order, and how many were read, joined to an earlier one, kept, and dropped because they
        contradict each other (the same question with two answers) or have no rephrasing left.
    """
    everything = list(questions)
    groups, contradictory = group_by_text(
        everything, lambda question: question.prompt, lambda question: question.answer
    )
    joined = [
        replace(group[0], rephrasings=different(group[0].prompt, (text for item in group for text in item.rephrasings)))
        for group in groups
    ]
    kept = [question for question in joined if question.rephrasings]
    counts = {
        "read": len(everything),
        "dropped_contradictory": contradictory,
        "joined": len(everything) - contradictory - len(groups),
        "dropped_no_rephrasing": len(joined) - len(kept),
        "kept": len(kept),
    }
    return kept, counts


def edit_tuple(question: Question, unrelated: PromptAnswer) -> EditTuple:
    """Make the edit that demands a question's answer."""
    return EditTuple(
        id=question.id,
        edit=PromptAnswer(question.prompt, question.answer),
        equivalent=question.rephrasings,
        unrelated=unrelated,
        subject=question.subject,
    )


def with_wrong_answers(questions: Sequence[Question], seed: int) -> list[Question]:
    """Give each question the answer of another, if possible of one with the same first word (Who, What, ...).

    Raises:
        UserError: if all questions have the same answer.
    """
    everywhere = [question.answer for question in questions]
    kinds = [question.prompt.split()[0].lower() for question in questions]
    of_kind: dict[str, list[str]] = {}
    for kind, question in zip(kinds, questions, strict=True):
        of_kind.setdefault(kind, []).append(question.answer)
    if len(set(map(key, everywhere))) == 1:
        raise UserError(f"All zsRE questions have the answer {everywhere[0]!r}, so no other is wrong; use more files.")
    varied = {kind for kind, answers in of_kind.items() if len(set(map(key, answers))) > 1}
    result = []
    for kind, question in zip(kinds, questions, strict=True):
        rng = random.Random(f"{seed}/wrong/{question.id}")
        answer = draw_another(of_kind[kind] if kind in varied else everywhere, question.answer, rng)
        result.append(replace(question, answer=answer))
    return result


def draw_another(answers: Sequence[str], own: str, rng: random.Random) -> str:
    """Draw an answer that differs from a question's own; there must be one."""
    while key(answer := rng.choice(answers)) == key(own):
        pass
    return answer
