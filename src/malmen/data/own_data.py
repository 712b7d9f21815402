"""The data set made of a user's own files of facts, in any format of :mod:`malmen.data.formats`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from malmen.config.data import OwnFiles, SharedUnrelated
from malmen.data.authors import part_unrelated, write_questions
from malmen.data.formats import read_unrelated_pairs
from malmen.data.parsing import key, tidy
from malmen.data.realtext import draw_unrelated
from malmen.data.splitting import Topic, split_tuples, topics
from malmen.data.training_tuples import TrainingTuples, read_training_tuples
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError
from malmen.runtime.files import write_text


def build_own(
    files: OwnFiles, folder: Path, shares: dict[str, int], split_seed: int, shared_unrelated: SharedUnrelated
) -> Mapping[str, object]:
    """Write the data set of own files to ``folder``.

    Facts with the same subject, or with the same question among their prompts and rephrasings, are all in one split.
    The unrelated prompts of a file are divided like the facts, so that none of them is in two splits; what becomes of
    those that the facts' records hold themselves, ``shared_unrelated`` says. ``finetune.jsonl`` holds the unrelated
    tuples, for models that know nothing yet, and the text holds them, and the training questions without answers. All
    texts are brought to one line with single spaces.

    Args:
        files: The files, and how they are read.
        folder: Where the five files of a dataset and ``counts.json`` go.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.
        shared_unrelated: What becomes of an unrelated prompt that both training and validation use.

    Returns:
        The format, the field that is the answer, and the numbers of records, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or a split has no facts or no unrelated prompts.
    """
    assert files.facts  # The configuration was checked.
    facts, others = Path(files.facts), Path(files.unrelated) if files.unrelated else None
    unrelated, read = read_unrelated_pairs(others, files.skip_bad) if others else ([], None)
    pool = [PromptAnswer(tidy(item.prompt), tidy(item.answer)) for item in unrelated]
    found = read_training_tuples(facts, pool, files.answers, files.skip_bad, files.seed)
    tuples = list(map(tidied, found.tuples))
    splits = split_tuples(tuples, shares, split_seed, topics_of)
    for name in ("train", "validation"):
        if not splits[name]:
            raise UserError(
                f"The {len(tuples):,} facts of {facts} leave none for the {name} split: too few, or too many of them "
                "share a subject or a question; add facts, or raise the split's share."
            )
    splits = with_drawn(splits, found, shares, files.seed)
    where = f"training's facts of {facts}", f"validation's facts of {facts}"
    splits, shared = part_unrelated(splits, shared_unrelated, files.seed, *where)
    write_questions(folder, splits)
    counts: dict[str, object] = {"format": found.read.format, "answer": found.read.answer}
    counts |= {f"facts_{name}": count for name, count in found.counts().items()}
    if read:
        counts |= {f"unrelated_{name}": value for name, value in asdict(read).items() if name != "answer"}
        counts["unrelated_kept"] = len(found.pool)
    counts |= shared | {f"split_{name}": len(items) for name, items in splits.items()}
    write_text(folder / "counts.json", json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    return counts


def tidied(item: EditTuple) -> EditTuple:
    """Return a tuple whose texts stand on one line with single spaces."""
    return replace(
        item,
        edit=PromptAnswer(tidy(item.edit.prompt), tidy(item.edit.answer)),
        equivalent=tuple(map(tidy, item.equivalent)),
        unrelated=PromptAnswer(tidy(item.unrelated.prompt), tidy(item.unrelated.answer)),
        subject=tidy(item.subject) if item.subject else None,
    )


def topics_of(item: EditTuple) -> list[Topic]:
    """Return what a fact is about: its questions in all forms, and its subject if it is known."""
    return [*topics(item), *(("question", key(prompt)) for prompt in item.equivalent)]


def with_drawn(
    splits: dict[str, list[EditTuple]], found: TrainingTuples, shares: dict[str, int], seed: int
) -> dict[str, list[EditTuple]]:
    """Give the tuples whose records have no unrelated prompt one of their split's part of the pool."""
    lacking = {name: [item for item in items if item.id in found.drawn] for name, items in splits.items()}
    if not any(lacking.values()):
        return splits
    drawn = {item.id: item for items in draw_unrelated(lacking, found.pool, shares, seed).values() for item in items}
    return {name: [drawn.get(item.id, item) for item in items] for name, items in splits.items()}
