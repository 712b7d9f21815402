"""From upstream files to dataset folders: FEVER with FEVER 2.0, zsRE with NQ-open or wrong answers, and others.

The others, CounterFact and WikiBigEdit, bring their own unrelated tuples.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from malmen.data import counterfact, fever, nq, wikibigedit, zsre
from malmen.data.paraphrase import FRAMES
from malmen.data.parsing import key
from malmen.data.splitting import draw, split_tuples
from malmen.data.tuples import EditTuple, PromptAnswer, write_dataset
from malmen.errors import UserError
from malmen.runtime.files import write_text

UNRELATED_PART = 4
"""If edits and unrelated tuples come from the same files, one of this many subjects is unrelated."""


@dataclass(frozen=True)
class RawFiles:
    """The upstream files of edits and those of unrelated tuples."""

    edits: Sequence[Path]
    unrelated: Sequence[Path]


def build_fever(
    raw: RawFiles, folder: Path, seed: int, shares: dict[str, int], split_seed: int, n_equivalent: int
) -> dict[str, int]:
    """Make the FEVER dataset from claims files and write it to ``folder``.

    The model is fine-tuned on the true labels of all claims, even the unrelated ones: locality is only meaningful where
    the model knows the answer, and a tiny model knows nothing about the world. The pretraining text has a document for
    each Wikipedia page with its claims, each training claim followed by a rephrasing, so that the words of the sentence
    frames are known.

    Args:
        raw: Claims files, of FEVER and of FEVER 2.0. Each settled claim of the first becomes an edit to the opposite
            label; those of the second are, with their true labels, the unrelated tuples.
        folder: Where the five files of a dataset and ``counts.json`` go.
        seed: Determines rephrasings and unrelated tuples.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.
        n_equivalent: Rephrasings per claim.

    Returns:
        The numbers of records read, kept, and dropped by reason, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or the settings ask for more than the files hold.
    """
    if not 1 <= n_equivalent <= len(FRAMES):
        raise UserError(f"n_equivalent is {n_equivalent} but must lie between 1 and {len(FRAMES)}; change it.")
    kept, counts = fever.select(chain.from_iterable(map(fever.read_claims, raw.edits)))
    others, other_counts = fever.select(chain.from_iterable(map(fever.read_claims, raw.unrelated)))
    pool = [claim.pair for claim in others]
    tuples = [fever.edit_tuple(claim, stand_in(pool), n_equivalent, seed) for claim in kept]
    tuples = without_overlap(tuples, pool)
    splits = draw_unrelated(split_tuples(tuples, shares, split_seed), pool, shares, seed)
    edited = {item.id for item in tuples}
    pairs = [claim.pair for claim in kept if claim.id in edited] + pool
    framed = {item.edit.prompt: item.equivalent[0] for item in splits["train"]}
    documents: dict[str, list[str]] = {}
    for claim in [claim for claim in kept if claim.id in edited] + others:
        lines = [claim.text, framed[claim.text]] if claim.text in framed else [claim.text]
        documents.setdefault(claim.subject or claim.id, []).extend(lines)
    write_dataset(folder, splits, pairs, documents.values())
    return write_counts(folder, counts, other_counts, splits, dropped=len(kept) - len(tuples))


def build_zsre(raw: RawFiles, folder: Path, seed: int, shares: dict[str, int], split_seed: int) -> dict[str, int]:
    """Make the zsRE dataset from zsRE's questions and NQ-open and write it to ``folder``.

    The model is fine-tuned on the NQ questions that serve as unrelated tuples, and on none of the edits' answers.
    The pretraining text holds all NQ questions with their answers, and the training questions and their rephrasings
    without answers.

    Args:
        raw: Files of zsRE in KnowEdit's or MEND's format, each question of which becomes an edit to its correct answer,
            and files of NQ-open, whose questions with their first answers are the unrelated tuples.
        folder: Where the five files of a dataset and ``counts.json`` go.
        seed: Determines the unrelated tuples.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.

    Returns:
        The numbers of records read, kept, and dropped by reason, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or the settings ask for more than the files hold.
    """
    kept, counts = zsre.select(chain.from_iterable(map(zsre.read_questions, raw.edits)))
    pool, other_counts = nq.select(chain.from_iterable(map(nq.read_questions, raw.unrelated)))
    tuples = without_overlap([zsre.edit_tuple(question, stand_in(pool)) for question in kept], pool)
    splits = draw_unrelated(split_tuples(tuples, shares, split_seed), pool, shares, seed)
    used = {item.unrelated for item in chain(*splits.values())}
    asked = [text for item in splits["train"] for text in (item.edit.prompt, *item.equivalent)]
    known = [f"{pair.prompt} {pair.answer}" for pair in pool]
    write_dataset(folder, splits, [pair for pair in pool if pair in used], [known, asked])
    return write_counts(folder, counts, other_counts, splits, dropped=len(kept) - len(tuples))


def build_zsre_alternative(
    files: Sequence[Path], folder: Path, seed: int, shares: dict[str, int], split_seed: int
) -> dict[str, int]:
    """Make the zsRE dataset of Table 3, of zsRE's questions alone, and write it to ``folder`` (appendix A.7).

    The questions about a part of the subjects are the unrelated tuples, with their correct answers. Each of the others
    becomes an edit to a wrong answer, that of another question. The model is fine-tuned on the correct answers of all;
    the pretraining text holds the same questions and answers.

    Args:
        files: Files of zsRE in KnowEdit's or MEND's format.
        folder: Where the five files of a dataset and ``counts.json`` go.
        seed: Determines which subjects are unrelated, the wrong answers, and the pairing.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.

    Returns:
        The numbers of records read, kept, and dropped by reason, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or the settings ask for more than the files hold.
    """
    kept, counts = zsre.select(chain.from_iterable(map(zsre.read_questions, files)))
    edited: list[zsre.Question] = []
    others: list[zsre.Question] = []
    for question in kept:
        chosen = draw(seed, f"unrelated/{question.subject}")[0] % UNRELATED_PART == 0
        (others if chosen else edited).append(question)
    pool = [PromptAnswer(question.prompt, question.answer) for question in others]
    tuples = [zsre.edit_tuple(question, stand_in(pool)) for question in zsre.with_wrong_answers(edited, seed)]
    tuples = without_overlap(tuples, pool)
    splits = draw_unrelated(split_tuples(tuples, shares, split_seed), pool, shares, seed)
    finetune = [PromptAnswer(question.prompt, question.answer) for question in edited] + pool
    write_dataset(folder, splits, finetune, [[f"{pair.prompt} {pair.answer}" for pair in finetune]])
    counts |= {"kept": len(edited)}
    return write_counts(folder, counts, {"kept": len(pool)}, splits, dropped=len(edited) - len(tuples))


def build_counterfact(files: Sequence[Path], folder: Path, shares: dict[str, int], split_seed: int) -> dict[str, int]:
    """Make the CounterFact dataset and write it to ``folder``.

    An edit demands a false end of a sentence; its unrelated tuple is that of its record. No split shares a subject, a
    prompt or an unrelated prompt with another. The model is fine-tuned on the true ends of all, since an edit is to
    change what it knows. The pretraining text has the same sentences, and the training rephrasings with true ends.

    Args:
        files: Files of CounterFact, in either format.
        folder: Where the five files of a dataset and ``counts.json`` go.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.

    Returns:
        The numbers of records read, kept, and dropped by reason, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or no record is left.
    """
    whole, counts = counterfact.select(chain.from_iterable(map(counterfact.read_statements, files)))
    kept = counterfact.without_preserved(whole)
    if not kept:
        raise UserError(f"Of {counts['read']} records in {', '.join(map(str, files))} none is left; name other files.")
    tuples = [counterfact.edit_tuple(item) for item in kept]
    splits = split_tuples(tuples, shares, split_seed, counterfact.topics_among(tuples))
    pool = list(dict.fromkeys(item.unrelated for item in tuples))
    trained = {item.id for item in splits["train"]}
    sentences: dict[str, list[str]] = {}
    for item in kept:
        beginnings = (item.prompt, *item.rephrasings) if item.id in trained else (item.prompt,)
        sentences.setdefault(item.subject, []).extend(f"{beginning} {item.truth}" for beginning in beginnings)
    known = [f"{pair.prompt} {pair.answer}" for pair in pool]
    write_dataset(
        folder, splits, [PromptAnswer(item.prompt, item.truth) for item in kept] + pool, [*sentences.values(), known]
    )
    return write_counts(folder, counts, {"kept": len(pool)}, splits, dropped=len(whole) - len(kept))


def build_wikibigedit(files: Sequence[Path], folder: Path, shares: dict[str, int], split_seed: int) -> dict[str, int]:
    """Make the WikiBigEdit dataset and write it to ``folder``.

    An edit demands the answer of its record; the unrelated tuple is that of the record. No split shares a subject, a
    question or an unrelated question with another. The model is fine-tuned on the unrelated questions, and on none of
    the edits' answers. The pretraining text holds these questions with their answers, and the training questions and
    their rephrasings without answers.

    Args:
        files: Files of WikiBigEdit, in either form.
        folder: Where the five files of a dataset and ``counts.json`` go.
        shares: Relative sizes of the splits, by name.
        split_seed: Determines the split.

    Returns:
        The numbers of records read, kept, and dropped by reason, as written to ``counts.json``.

    Raises:
        UserError: if a file is missing or malformed, or no record is left.
    """
    whole, counts = wikibigedit.select(chain.from_iterable(map(wikibigedit.read_updates, files)))
    tuples = without_overlap(whole, [item.unrelated for item in whole])
    if not tuples:
        raise UserError(f"Of {counts['read']} records in {', '.join(map(str, files))} none is left; name other files.")
    splits = split_tuples(tuples, shares, split_seed, wikibigedit.topics_of)
    pool = list(dict.fromkeys(item.unrelated for item in tuples))
    known = [f"{pair.prompt} {pair.answer}" for pair in pool]
    asked = [text for item in splits["train"] for text in (item.edit.prompt, *item.equivalent)]
    write_dataset(folder, splits, pool, [known, asked])
    return write_counts(folder, counts, {"kept": len(pool)}, splits, dropped=len(whole) - len(tuples))


def stand_in(pool: Sequence[PromptAnswer]) -> PromptAnswer:
    """Return a placeholder for the unrelated tuple, until :func:`draw_unrelated` can draw it after the split."""
    if not pool:
        raise UserError("The files of unrelated tuples contain no usable one; name other files in the configuration.")
    return pool[0]


def without_overlap(tuples: Iterable[EditTuple], pool: Iterable[PromptAnswer]) -> list[EditTuple]:
    """Drop the tuples whose edit or equivalent prompts ask what the pool of unrelated prompts asks.

    Otherwise an editor would have to change and to preserve the answer to one prompt.
    """
    unrelated = {key(pair.prompt) for pair in pool}
    return [item for item in tuples if unrelated.isdisjoint(map(key, (item.edit.prompt, *item.equivalent)))]


def draw_unrelated(
    splits: dict[str, list[EditTuple]], pool: Sequence[PromptAnswer], shares: dict[str, int], seed: int
) -> dict[str, list[EditTuple]]:
    """Give every tuple an unrelated one, drawn from its split's part of the pool.

    The pool is split like the tuples, so that locality is never reported on prompts that an editor was trained to
    preserve. Within a part, all are used equally often, in random order.

    Raises:
        UserError: if a split with tuples receives no part of the pool.
    """
    wrapped = [EditTuple(id=pair.prompt, edit=pair, equivalent=(pair.prompt,), unrelated=pair) for pair in pool]
    parts = split_tuples(wrapped, shares, seed)
    result = {}
    for name, items in splits.items():
        part = [wrapper.edit for wrapper in parts[name]]
        if items and not part:
            raise UserError(f"Split {name!r} receives none of the {len(pool)} unrelated tuples; raise its share.")
        random.Random(f"{seed}/unrelated/{name}").shuffle(part)
        result[name] = [replace(item, unrelated=part[i % len(part)]) for i, item in enumerate(items)]
    return result


def write_counts(
    folder: Path,
    edits: dict[str, int],
    unrelated: dict[str, int],
    splits: dict[str, list[EditTuple]],
    dropped: int,
) -> dict[str, int]:
    """Write ``counts.json``: records read, kept and dropped of edits and of unrelated tuples, and the splits' sizes."""
    counts = {f"edits_{name}": count for name, count in edits.items()}
    counts["edits_dropped_also_unrelated"] = dropped
    counts["edits_kept"] = edits["kept"] - dropped
    counts |= {f"unrelated_{name}": count for name, count in unrelated.items()}
    counts |= {f"split_{name}": len(items) for name, items in splits.items()}
    write_text(folder / "counts.json", json.dumps(counts, indent=2) + "\n")
    return counts
