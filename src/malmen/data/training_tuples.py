"""Edit tuples made of facts in any format: what editors are trained and evaluated on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from malmen.config.base import Answers
from malmen.data.formats import TUPLES, FactRecord, ReadFrom, read_fact_records
from malmen.data.parsing import key
from malmen.data.splitting import draw
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.data.user_text import named
from malmen.runtime.problems import refuse_all
from malmen.runtime.text import counted


@dataclass(frozen=True)
class TrainingTuples:
    """The edit tuples of a file.

    Attributes:
        tuples: the tuples, in the order of the file.
        read: where they come from; its ``skipped`` counts all records that were left out.
        joined: how many records have the prompt of an earlier one, whose tuple received their rephrasings and
            unrelated prompts.
        without_rephrasings: ids of the tuples whose prompt alone is equivalent to itself.
        drawn: ids of the tuples whose record has no unrelated prompt, so that theirs is drawn.
        pool: the unrelated prompts that were drawn from: those given that ask nothing that the file edits.
        seed: seed of the draws.
    """

    tuples: list[EditTuple]
    read: ReadFrom
    joined: int
    without_rephrasings: frozenset[str]
    drawn: frozenset[str]
    pool: list[PromptAnswer]
    seed: int

    def counts(self) -> dict[str, int]:
        """Return how many records were read, left out and joined, and what the tuples lacked."""
        return {
            "read": self.read.records,
            "skipped": self.read.skipped,
            "joined": self.joined,
            "without_rephrasings": len(self.without_rephrasings),
            "drawn_unrelated": len(self.drawn),
            "kept": len(self.tuples),
        }


def read_training_tuples(
    path: Path,
    unrelated: Sequence[PromptAnswer] = (),
    answers: Answers = "new",
    skip_bad: bool = False,
    seed: int = 0,
) -> TrainingTuples:
    """Read edit tuples from a file in any format of :mod:`malmen.data.formats`.

    A record without rephrasings becomes a tuple whose prompt is equivalent to itself. Of several unrelated prompts of a
    record, one is drawn; a record without any gets one of ``unrelated``. None of them asks what the file edits. Edit
    tuples of this package stay as they are.

    Args:
        path: the file; ``-`` is standard input.
        unrelated: unrelated prompts, with answers, for records without one.
        answers: which answer is taken where a record has two.
        skip_bad: leave out records that do not fit, contradict an earlier one, or find no unrelated prompt.
        seed: seed of the draws.

    Raises:
        UserError: as :func:`malmen.data.formats.read_fact_records`, and if records find no unrelated prompt; names all
            of them.
    """
    # This package's tuples may edit one prompt several times: they are not edited all at once.
    found = read_fact_records(path, answers, skip_bad, may_contradict=(TUPLES,))
    file = named(path)
    if found.read.format == TUPLES:
        items = [own_tuple(record) for record in found.records]
        return TrainingTuples(items, found.read, 0, frozenset(), frozenset(), [], seed)
    records = joined(found.records)
    asked = {key(prompt) for record in records for prompt in (record.prompt, *record.rephrasings)}
    pool = list(dict.fromkeys(pair for pair in unrelated if key(pair.prompt) not in asked))
    tuples: list[EditTuple] = []
    drawn: set[str] = set()
    problems: list[str] = []
    for record in records:
        name = id_of(record.prompt)
        own = [pair for pair in record.unrelated if key(pair.prompt) not in asked]
        if not (own or pool):
            reason = "its unrelated prompts are edited by the file, too" if record.unrelated else "no unrelated prompt"
            remedy = "add another, or name a file of unrelated questions"
            problems.append(f"{file}, {record.where}: {reason}; {remedy}.")
            continue
        if not own:
            drawn.add(name)
        equivalent = record.rephrasings or (record.prompt,)
        chosen = one_of(own or pool, seed, name)
        edit = PromptAnswer(record.prompt, record.answer)
        tuples.append(EditTuple(name, edit, equivalent, chosen, record.subject, record.truth))
    if not skip_bad or not tuples:
        refuse_all(problems, f"{counted(found.read.records, 'record')} of {file}")
    bare = frozenset(item.id for item in tuples if item.equivalent == (item.edit.prompt,))
    read = replace(found.read, skipped=found.read.skipped + len(problems))
    n_joined = len(found.records) - len(records)
    return TrainingTuples(tuples, read, n_joined, bare, frozenset(drawn), pool, seed)


def own_tuple(record: FactRecord) -> EditTuple:
    """Return the edit tuple of this package that a record was."""
    assert record.id is not None  # Its format has one.
    edit = PromptAnswer(record.prompt, record.answer)
    return EditTuple(record.id, edit, record.rephrasings, record.unrelated[0], record.subject, record.truth)


def joined(records: Sequence[FactRecord]) -> list[FactRecord]:
    """Join the records of one prompt, whose answers agree, into one with the texts of all."""
    groups: dict[str, list[FactRecord]] = {}
    for record in records:
        groups.setdefault(record.prompt, []).append(record)
    return [
        group[0]
        if len(group) == 1
        else replace(
            group[0],
            rephrasings=tuple(dict.fromkeys(text for record in group for text in record.rephrasings)),
            subject=next((record.subject for record in group if record.subject), None),
            unrelated=tuple(dict.fromkeys(pair for record in group for pair in record.unrelated)),
            truth=next((record.truth for record in group if record.truth), None),
        )
        for group in groups.values()
    ]


def id_of(prompt: str) -> str:
    """Return an id that depends on the prompt alone."""
    return f"own-{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def one_of(pairs: Sequence[PromptAnswer], seed: int, name: str) -> PromptAnswer:
    """Draw one of several by seed and name."""
    return pairs[int.from_bytes(draw(seed, f"unrelated/{name}")[:8]) % len(pairs)]
