"""WikiBigEdit (Thede et al., 2025): questions on facts that changed in Wikidata, and the edit tuples made from them.

A file is a JSON list. A record asks about a fact in ``update``, with its answer ``ans``, again in ``rephrase`` and, of
a persona ("You are a sailor. Where is ..."), in ``personas``; ``loc`` and ``loc_ans`` are a question on another fact
that an edit must preserve, and its answer. ``mhop`` and ``mhop_ans``, which take two facts to answer, are not used. In
LocFT's copy the fields are called as in EasyEdit: ``prompt``, ``target_new``, ``rephrase_prompt``, ``locality_prompt``
and ``locality_ground_truth``; it names the ``subject`` and has no personas. All texts are brought to one line.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.data import zsre
from malmen.data.parsing import different, group_by_text, key, perhaps_empty, read_json_list, reading, tidy
from malmen.data.splitting import Topic, topics
from malmen.data.tuples import EditTuple, PromptAnswer

FIELDS = {
    "prompt": "update",
    "answer": "ans",
    "rephrase": "rephrase",
    "unrelated": "loc",
    "unrelated_answer": "loc_ans",
}
"""The names of the fields in the authors' files."""
LOCFT_FIELDS = {
    "prompt": "prompt",
    "answer": "target_new",
    "rephrase": "rephrase_prompt",
    "unrelated": "locality_prompt",
    "unrelated_answer": "locality_ground_truth",
}
"""The names of the fields in LocFT's copy."""


@dataclass(frozen=True)
class Update:
    """A record: a question with its answer, and the unrelated tuple; none if the record has none."""

    question: zsre.Question
    unrelated: PromptAnswer | None


def read_updates(path: Path) -> list[Update]:
    """Read a file in either form; a malformed file or record is a :class:`UserError` naming file and record."""
    updates = []
    for index, record in enumerate(read_json_list(path)):
        with reading(path, f"record {index}"):
            if not isinstance(record, dict):
                raise TypeError(f"expected a JSON object, found {type(record).__name__}")
            updates.append(update(record))
    return updates


def update(record: Mapping[str, Any]) -> Update:
    """Read a record; its subject, rephrasings and unrelated question may be absent, null or empty.

    Raises:
        KeyError, TypeError, ValueError: if it is malformed.
    """
    names = FIELDS if "update" in record else LOCFT_FIELDS
    given = {name: value for name, value in record.items() if value is not None}
    prompt = tidy(record[names["prompt"]])
    rephrase, personas, unrelated, answer, subject = (
        perhaps_empty(given.get(name, ""))
        for name in (names["rephrase"], "personas", names["unrelated"], names["unrelated_answer"], "subject")
    )
    question = zsre.Question(
        id=zsre.question_id(prompt).replace("zsre", "wikibigedit"),
        subject=subject or None,
        prompt=prompt,
        answer=tidy(record[names["answer"]]),
        rephrasings=different(prompt, filter(None, (rephrase, personas))),
    )
    return Update(question, PromptAnswer(unrelated, answer) if unrelated and answer else None)


def select(updates: Iterable[Update]) -> tuple[list[EditTuple], dict[str, int]]:
    """Merge records with the same question, and make edit tuples of those that are whole and that no other contradicts.

    Returns:
        The tuples, and how many records were read, joined to an earlier one, kept, and dropped: because they have no
        unrelated question, contradict each other (one question with two answers), or have no rephrasing; or because the
        unrelated question has two answers.
    """
    everything = list(updates)
    complete = [(item.question, item.unrelated) for item in everything if item.unrelated]
    questions, counts = zsre.select(question for question, _ in complete)
    # Of records with one question, the unrelated question of the first stays.
    unrelated = {question.id: pair for question, pair in reversed(complete)}
    tuples = [zsre.edit_tuple(question, unrelated[question.id]) for question in questions]
    agreeing, ambiguous = group_by_text(tuples, lambda item: item.unrelated.prompt, lambda item: item.unrelated.answer)
    agreed = {item.id for group in agreeing for item in group}
    kept = [item for item in tuples if item.id in agreed]
    return kept, {
        **counts,
        "read": len(everything),
        "dropped_no_unrelated": len(everything) - len(complete),
        "dropped_ambiguous_unrelated": ambiguous,
        "kept": len(kept),
    }


def topics_of(item: EditTuple) -> list[Topic]:
    """Return the topics of a tuple, with its unrelated question, so that splits share neither edits nor these.

    The subjects that the unrelated question names are left out: some are words such as "In".
    """
    return [*topics(item), ("question", key(item.unrelated.prompt))]
