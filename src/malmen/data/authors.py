"""The authors' own files, with the tuples of the paper (5.1), and the dataset folders made from them.

A file is a JSON list. FEVER's records hold ``prompt``, ``equiv_prompt`` (a list), ``alt`` (the flipped label, which the
edit demands), ``unrel_prompt`` and ``unrel_ans``; zsRE's hold ``src``, ``rephrase``, ``ans``, ``loc`` (a question
without its question mark) and ``loc_ans``. No record names its subject. All records of the evaluation files are
validation tuples; those of the training files are divided into training and tuning.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from malmen.config.data import SharedUnrelated
from malmen.data import zsre
from malmen.data.fever import OPPOSITE, label, settled_label
from malmen.data.parsing import key, read_json_list, reading, tidy
from malmen.data.realtext import UNRELATED_PART, draw_unrelated, stand_in, without_overlap
from malmen.data.splitting import draw, split_tuples
from malmen.data.tuples import EditTuple, PromptAnswer, write_dataset
from malmen.errors import UserError
from malmen.runtime.files import write_text

T = TypeVar("T")
Splits = dict[str, list[EditTuple]]


@dataclass(frozen=True)
class TupleFiles:
    """The two files of a data set, and the number of records that each must have.

    Attributes:
        train: of training (and tuning) tuples.
        evaluation: of validation tuples.
        records: their numbers of records; None is not checked.
        shared_unrelated: whether training keeps unrelated prompts that validation uses, too.
    """

    train: Path
    evaluation: Path
    records: tuple[int | None, int | None]
    shared_unrelated: SharedUnrelated = "keep"

    def read(self, tuple_of: Callable[[str, Any], T]) -> tuple[list[T], list[T]]:
        """Read both files, and convert each record, usually to an edit tuple.

        Args:
            tuple_of: Makes a tuple of an id and a record; raises Key-, Type- or ``ValueError`` if that is malformed.

        Raises:
            UserError: if a file is missing or malformed, or has a wrong number of records.
        """
        train, evaluation = (
            read_tuples(path, part, records, tuple_of)
            for path, part, records in zip((self.train, self.evaluation), ("train", "eval"), self.records, strict=True)
        )
        return train, evaluation

    def part_unrelated(self, splits: Splits, seed: int) -> tuple[Splits, dict[str, int]]:
        """Count the unrelated prompts that training or tuning shares with validation; replace them if asked to.

        Arguments, result and errors are those of :func:`part_unrelated`.
        """
        return part_unrelated(splits, self.shared_unrelated, seed, str(self.train), str(self.evaluation))


def part_unrelated(
    splits: Splits, shared_unrelated: SharedUnrelated, seed: int, train: str, evaluation: str
) -> tuple[Splits, dict[str, int]]:
    """Count the unrelated prompts that training or tuning shares with validation; replace them if asked to.

    Validation, on which results are reported, stays as it is.

    Args:
        splits: The tuples by split.
        shared_unrelated: What becomes of a shared prompt.
        seed: Determines by which other it is replaced.
        train: What messages call the tuples of training and tuning.
        evaluation: What they call those of validation.

    Returns:
        The splits, and how many tuples of each have a shared prompt, and received another.

    Raises:
        UserError: if validation uses every unrelated prompt, so that none is left for training.
    """
    used = {name: {key(item.unrelated.prompt) for item in items} for name, items in splits.items()}
    reported, trained = used["validation"], used["train"] | used["tune"]
    elsewhere = {"train": reported, "tune": reported, "validation": trained}
    shared = {
        name: [item for item in items if key(item.unrelated.prompt) in elsewhere[name]]
        for name, items in splits.items()
    }
    counts = {f"unrelated_shared_{name}": len(items) for name, items in shared.items()}
    if shared_unrelated == "keep":
        return splits, counts | {"unrelated_replaced": 0}
    before = [*splits["train"], *splits["tune"]]
    left = list(dict.fromkeys(i.unrelated for i in before if key(i.unrelated.prompt) not in reported))
    if shared["validation"] and not left:
        raise UserError(
            f"All unrelated prompts of {train} are in {evaluation}, too, so none is left for training; "
            "set data.shared_unrelated: keep."
        )

    def another(item: EditTuple) -> EditTuple:
        place = int.from_bytes(draw(seed, f"another/{item.id}")[:8]) % len(left)
        return replace(item, unrelated=left[place])

    parted = {
        name: [another(item) if key(item.unrelated.prompt) in reported else item for item in splits[name]]
        for name in ("train", "tune")
    }
    return splits | parted, counts | {"unrelated_replaced": len(shared["train"]) + len(shared["tune"])}


def read_tuples(path: Path, part: str, expected: int | None, tuple_of: Callable[[str, Any], T]) -> list[T]:
    """Read a file; the ids of its tuples are ``part`` and their numbers (see :meth:`TupleFiles.read`)."""
    records = read_json_list(path)
    if expected not in (None, len(records)):
        raise UserError(
            f"{path} holds {len(records):,} records but the paper's has {expected:,}; download the file again."
        )
    tuples = []
    for index, record in enumerate(records):
        with reading(path, f"record {index}"):
            if not isinstance(record, dict):
                raise TypeError(f"expected a JSON object, found {type(record).__name__}")
            tuples.append(tuple_of(f"{part}-{index}", record))
    return tuples


def build_fever(files: TupleFiles, folder: Path, seed: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Write the FEVER dataset to ``folder``; fine-tuning is on the true labels of all claims (appendix A.4).

    Args:
        files: FEVER's files.
        folder: Where the five files of a dataset and ``counts.json`` go.
        seed: Determines which records of the training file are for tuning.
        shares: Relative sizes of the splits by name; only "train" and "tune" count.

    Returns:
        The numbers of records read, kept and dropped, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or has another number of records than the paper's.
    """
    train, evaluation = files.read(fever_tuple)
    splits, shared = files.part_unrelated(deal(train, evaluation, shares, seed), seed)
    finetune = [PromptAnswer(item.edit.prompt, OPPOSITE[item.edit.answer]) for item in chain(train, evaluation)]
    write_dataset(folder, splits, finetune, ([item.edit.prompt, item.equivalent[0]] for item in splits["train"]))
    labels = Counter(item.unrelated.answer for item in chain(train, evaluation))
    more = {f"unrelated_{label.lower()}": labels[label] for label in sorted(OPPOSITE)}
    return write_counts(folder, (train, evaluation), more | shared, splits)


def build_zsre(files: TupleFiles, folder: Path, seed: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Write the zsRE dataset to ``folder``, of edits to the correct answers.

    The paper fine-tunes no model here. ``finetune.jsonl`` holds the unrelated tuples, for models that know nothing yet.
    Arguments, result and errors are those of :func:`build_fever`.
    """
    train, evaluation = files.read(zsre_tuple)
    splits, shared = files.part_unrelated(deal(train, evaluation, shares, seed), seed)
    write_questions(folder, splits)
    return write_counts(folder, (train, evaluation), shared, splits)


def write_questions(folder: Path, splits: Splits) -> None:
    """Write a zsRE dataset; its text holds the unrelated questions with answers and the edits' without."""
    known = [f"{item.unrelated.prompt} {item.unrelated.answer}" for item in splits["train"]]
    asked = [text for item in splits["train"] for text in (item.edit.prompt, *item.equivalent)]
    write_dataset(folder, splits, dict.fromkeys(item.unrelated for item in chain(*splits.values())), [known, asked])


def build_zsre_alternative(files: TupleFiles, folder: Path, seed: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Write the zsRE dataset of Table 3 to ``folder``: edits to wrong answers, unrelated tuples of zsRE (appendix A.7).

    In each file, part of the questions are the unrelated tuples. The edits of the others demand the answer of another
    question of their file. Fine-tuning is on the correct answers of all. Arguments, result and errors are those of
    :func:`build_fever`.
    """
    train, evaluation = files.read(zsre_tuple)
    asked, reported = (
        [zsre.Question(item.id, item.subject, item.edit.prompt, item.edit.answer, item.equivalent) for item in part]
        for part in (train, evaluation)
    )
    splits, pool = deal_alternatives(asked, reported, zsre.with_wrong_answers, shares, seed)
    finetune = list(dict.fromkeys(item.edit for item in chain(train, evaluation)))
    write_dataset(folder, splits, finetune, [[f"{pair.prompt} {pair.answer}" for pair in finetune]])
    return write_counts(folder, (train, evaluation), {"unrelated_kept": len(pool)}, splits)


def deal_alternatives(
    train: Sequence[zsre.Question],
    evaluation: Sequence[zsre.Question],
    wrong: Callable[[Sequence[zsre.Question], int], list[zsre.Question]],
    shares: Mapping[str, int],
    seed: int,
) -> tuple[Splits, list[PromptAnswer]]:
    """Divide edits to wrong answers as :func:`deal` does, and draw their unrelated tuples from the other questions.

    Args:
        train: Questions of the training file with their correct answers.
        evaluation: Those of the other file.
        wrong: Gives questions wrong answers, by a seed.
        shares: Relative sizes of the splits.
        seed: Determines which questions are unrelated, and all draws.

    Returns:
        The edits by split, and all unrelated tuples.
    """
    first, pool = with_alternatives(train, wrong, {**shares, "validation": 0}, seed)
    second, other_pool = with_alternatives(evaluation, wrong, {"train": 0, "tune": 0, "validation": 1}, seed)
    return {name: first[name] + second[name] for name in first}, pool + other_pool


def with_alternatives(
    questions: Sequence[zsre.Question],
    wrong: Callable[[Sequence[zsre.Question], int], list[zsre.Question]],
    shares: dict[str, int],
    seed: int,
) -> tuple[Splits, list[PromptAnswer]]:
    """Return a file's edits to wrong answers, by split, and the questions that are their unrelated tuples."""
    edited: list[zsre.Question] = []
    pool: dict[PromptAnswer, None] = {}
    for question in questions:
        # By the subject or else the question, so that one that occurs twice is not both edited and unrelated.
        if draw(seed, f"unrelated/{question.subject or key(question.prompt)}")[0] % UNRELATED_PART == 0:
            pool[PromptAnswer(question.prompt, question.answer)] = None
        else:
            edited.append(question)
    others = list(pool)
    tuples = [zsre.edit_tuple(question, stand_in(others)) for question in wrong(edited, seed)]
    return draw_unrelated(split_tuples(without_overlap(tuples, others), shares, seed), others, shares, seed), others


def deal(train: Sequence[EditTuple], evaluation: Sequence[EditTuple], shares: Mapping[str, int], seed: int) -> Splits:
    """Divide the training file's tuples into training and tuning; all others are for validation."""
    return split_tuples(train, {**shares, "validation": 0}, seed) | {
        "validation": sorted(evaluation, key=lambda item: draw(seed, item.id))
    }


def fever_tuple(name: str, record: Mapping[str, Any]) -> EditTuple:
    """Make the edit of a record of FEVER; raise Key-, Type- or ``ValueError`` if it is malformed."""
    if not isinstance(record["equiv_prompt"], list):
        raise TypeError(f"equiv_prompt must be a list, not {record['equiv_prompt']!r}")
    return EditTuple(
        id=f"fever-{name}",
        edit=PromptAnswer(tidy(record["prompt"]), label(record["alt"])),
        equivalent=tuple(map(tidy, record["equiv_prompt"])),
        unrelated=PromptAnswer(tidy(record["unrel_prompt"]), settled_label(record["unrel_ans"])),
    )


def zsre_tuple(name: str, record: Mapping[str, Any]) -> EditTuple:
    """Make the edit of a record of zsRE; raise Key-, Type- or ``ValueError`` if it is malformed."""
    return EditTuple(
        id=f"zsre-{name}",
        edit=PromptAnswer(tidy(record["src"]), tidy(record["ans"])),
        equivalent=(tidy(record["rephrase"]),),
        unrelated=PromptAnswer(f"{tidy(record['loc'])}?", tidy(record["loc_ans"])),
    )


def write_counts(
    folder: Path, read: tuple[Sequence[Any], Sequence[Any]], counts: Mapping[str, int], splits: Splits
) -> dict[str, int]:
    """Write ``counts.json``: the number of records of both files, counts of those dropped, and the splits' sizes."""
    whole = {"read_train": len(read[0]), "read_eval": len(read[1]), **counts}
    whole |= {f"split_{name}": len(items) for name, items in splits.items()}
    write_text(folder / "counts.json", json.dumps(whole, indent=2) + "\n")
    return whole
