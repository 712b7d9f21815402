"""Rebuilding the paper's data from KILT, FEVER 2.0 and NQ-open, step by step (De Cao et al., 2021; paper, 5.1).

1. *Select*: one original per text, of FEVER's claims or zsRE's questions (:func:`select_originals`).
2. *Back-translate* each into candidate rephrasings (:func:`malmen.jobs.back_translate.translate_part`).
3. *Filter* them: the fine-tuned model must answer a rephrasing as it answers the original
   (:func:`malmen.jobs.filter_rephrasings.filter_part`).
4. *Choose alternatives*, for edits to wrong answers (:func:`choose_alternatives`).
5. *Pair*: make edit tuples of the originals with a rephrasing left, and pair them with unrelated ones
   (:func:`pair_tuples`).

The fine-tuning data depend only on the originals (:func:`list_finetuning_data`), so that the model that filters can be
the one that is edited. Every step writes what it dropped and why (:mod:`malmen.data.reports`).
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from malmen.data import fever, kilt, nq
from malmen.data.authors import deal
from malmen.data.fever import OPPOSITE
from malmen.data.kilt import Original
from malmen.data.parsing import group_by_text, key
from malmen.data.realtext import UNRELATED_PART, draw_unrelated, stand_in, without_overlap
from malmen.data.reports import Report, table
from malmen.data.splitting import draw, split_tuples
from malmen.data.tuples import (
    EditTuple,
    PromptAnswer,
    is_text,
    write_finetuning_data,
    write_jsonl,
    write_splits,
)
from malmen.data.zsre import draw_another
from malmen.errors import UserError
from malmen.runtime.files import write_text

Corpus = Literal["fever", "zsre"]
"""The kind of originals: claims or questions."""

MAKE_AGAIN = "make the file again"

PARSERS = {"fever": kilt.claim, "zsre": kilt.questions}


@dataclass(frozen=True)
class OriginalsPart:
    """One of the parts into which the originals are divided, each of which is a job.

    Attributes:
        number: from 0.
        of: number of parts.
    """

    number: int
    of: int

    def __call__(self, originals: Sequence[Original]) -> list[Original]:
        """Return the originals that belong to this part."""
        return list(originals[self.number :: self.of])


def select_originals(corpus: Corpus, train: Sequence[Path], validation: Sequence[Path], out: Path) -> Report:
    """Write one original per text (whatever its case, punctuation and spacing) to ``out``, those for validation first.

    Args:
        corpus: What the files hold.
        train: Files of KILT.
        validation: Files whose originals are all for validation; if there are none, a share of the others is.
        out: Receives one original per line; its ``validation`` says whether it comes from those files.

    Returns:
        How many were dropped as contradictory (all those with the same text and two answers) or repeated. Originals in
        both kinds of files are kept for validation.

    Raises:
        UserError: if a file is missing or malformed.
    """
    parts = [
        [original for path in paths for found in kilt.read_records(path, PARSERS[corpus]) for original in found]
        for paths in (validation, train)
    ]
    everything = [*parts[0], *parts[1]]
    groups, contradictory = group_by_text(everything, lambda item: item.prompt, lambda item: item.answer)
    kept = [group[0] for group in groups]
    reported = {original.id for original in parts[0]}
    write_jsonl(out, (asdict(original) | {"validation": original.id in reported} for original in kept))
    dropped = {"contradictory": contradictory, "repeated": len(everything) - contradictory - len(kept)}
    return Report("select", "prompts", len(everything), dropped, len(kept))


def read_originals(path: Path) -> dict[bool, list[Original]]:
    """Read the originals that :func:`select_originals` wrote: for validation (True) and for training (False)."""
    parts: dict[bool, list[Original]] = {False: [], True: []}
    for validates, original in kilt.read_records(path, original_from_json, MAKE_AGAIN):
        parts[validates].append(original)
    return parts


def original_from_json(record: Mapping[str, Any]) -> tuple[bool, Original]:
    """Return whether an original is for validation, and it; raise Key-, Type- or ``ValueError`` if malformed."""
    if not isinstance(record["validation"], bool):
        raise TypeError(f"'validation' must be true or false, not {record['validation']!r}")
    return record["validation"], Original(**{name: record[name] for name in record if name != "validation"})


def all_originals(path: Path) -> list[Original]:
    """Read all originals."""
    parts = read_originals(path)
    return parts[True] + parts[False]


def distinct(original: str, candidates: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """Return the candidates that differ from the original and from each other in more than case and punctuation.

    Returns:
        Those candidates, in order, and how many were dropped, by reason.
    """
    dropped = {"empty": 0, "same_as_the_original": 0, "repeated": 0}
    found: dict[str, str] = {}
    for candidate in candidates:
        text = " ".join(candidate.split())
        if not any(map(str.isalnum, text)):
            dropped["empty"] += 1
        elif key(text) == key(original):
            dropped["same_as_the_original"] += 1
        elif key(text) in found:
            dropped["repeated"] += 1
        else:
            found[key(text)] = text
    return list(found.values()), dropped


def write_rephrasings(path: Path, rephrasings: Mapping[str, Sequence[str]]) -> None:
    """Write rephrasings by the originals' ids."""
    write_jsonl(path, ({"id": name, "rephrasings": list(texts)} for name, texts in rephrasings.items()))


def read_rephrasings(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Read rephrasings by the originals' ids, of all parts."""
    return dict(pair for path in paths for pair in kilt.read_records(path, rephrasings_from_json, MAKE_AGAIN))


def rephrasings_from_json(record: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return an id and its rephrasings; raise Key-, Type- or ``ValueError`` if they are malformed."""
    name, rephrasings = record["id"], record["rephrasings"]
    if not isinstance(rephrasings, list) or not all(map(is_text, (name, *rephrasings))):
        raise ValueError(f"'id' and 'rephrasings' must be a text and a list of texts, not {name!r} and {rephrasings!r}")
    return name, rephrasings


def read_alternatives(path: Path) -> dict[str, str]:
    """Read the wrong answers that :func:`choose_alternatives` wrote, by the originals' ids."""
    return dict(kilt.read_records(path, alternative_from_json, MAKE_AGAIN))


def alternative_from_json(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return an id and its wrong answer; raise Key- or ``ValueError`` if they are malformed."""
    name, answer = record["id"], record["answer"]
    if not (is_text(name) and is_text(answer)):
        raise ValueError(f"'id' and 'answer' must be non-empty strings, not {name!r} and {answer!r}")
    return name, answer


def choose_alternatives(originals: Path, seed: int, out: Path) -> Report:
    """Give every question a wrong answer of the right kind: that of another question about the same relation.

    De Cao et al. use predictions of their model. This choice needs no model.

    Args:
        originals: Questions (:func:`select_originals`).
        seed: Of the draws.
        out: Receives the answers by the originals' ids.
    """
    questions = all_originals(originals)
    of_relation: dict[str | None, list[str]] = {}
    for question in questions:
        of_relation.setdefault(question.relation, []).append(question.answer)
    varied = {relation for relation, answers in of_relation.items() if len(set(map(key, answers))) > 1}
    chosen = {
        question.id: draw_another(
            of_relation[question.relation], question.answer, random.Random(f"{seed}/wrong/{question.id}")
        )
        for question in questions
        if question.relation in varied
    }
    write_jsonl(out, ({"id": name, "answer": answer} for name, answer in chosen.items()))
    none = len(questions) - len(chosen)
    return Report("choose alternatives", "prompts", len(questions), {"no_other_answer": none}, len(chosen))


def read_pool(corpus: Corpus, files: Sequence[Path]) -> list[PromptAnswer]:
    """Return the unrelated tuples that files of FEVER 2.0 or of NQ-open give."""
    if corpus == "fever":
        claims, _ = fever.select(chain.from_iterable(map(fever.read_claims, files)))
        return [claim.pair for claim in claims]
    return nq.select(chain.from_iterable(map(nq.read_questions, files)))[0]


def list_finetuning_data(dataset: str, originals: Path, unrelated: Sequence[Path], folder: Path) -> None:
    """Write the data on which a model is fine-tuned, and the text on which tiny ones are pretrained.

    Neither needs rephrasings. A fact checker is fine-tuned on the true labels of all claims (appendix A.4), a model of
    "zsre_alternative" on the correct answers of all questions, and one of "zsre", if at all, on the unrelated tuples.

    Args:
        dataset: "fever", "zsre" or "zsre_alternative".
        originals: Its originals.
        unrelated: Files of unrelated tuples.
        folder: Receives ``finetune.jsonl`` and ``text.txt``.
    """
    parts = read_originals(originals)
    known = [original.pair for original in chain(parts[True], parts[False])]
    if dataset == "fever":
        pages: dict[str, list[str]] = {}
        for claim in parts[False]:
            pages.setdefault(claim.subject or claim.id, []).append(claim.prompt)
        write_finetuning_data(folder, known, pages.values())
        return
    finetune = known if dataset == "zsre_alternative" else read_pool("zsre", unrelated)
    asked = [] if dataset == "zsre_alternative" else [original.prompt for original in parts[False]]
    write_finetuning_data(
        folder, finetune, filter(None, [[f"{pair.prompt} {pair.answer}" for pair in finetune], asked])
    )


@dataclass(frozen=True)
class Ingredients:
    """The files from which edit tuples are made.

    Attributes:
        originals: Prompts with their correct answers.
        rephrasings: Filtered rephrasings by the originals' ids.
        alternatives: Wrong answers; None if edits demand other answers.
        unrelated: Unrelated tuples; empty if these are questions of zsRE.
    """

    originals: Path
    rephrasings: Sequence[Path]
    alternatives: Path | None
    unrelated: Sequence[Path]


def pair_tuples(
    dataset: str, ingredients: Ingredients, shares: dict[str, int], seed: int, steps: Sequence[Report], folder: Path
) -> Report:
    """Write the splits of a dataset, and what every step dropped (``counts.json`` and, as a table, ``counts.md``).

    Args:
        dataset: "fever" (edits to the opposite label), "zsre" (to the correct answer) or "zsre_alternative" (to a wrong
            one, with the questions about a part of the subjects as unrelated tuples, appendix A.7).
        ingredients: What the tuples are made of.
        shares: Relative sizes of the splits; that of "validation" counts only if no files are for validation.
        seed: Of the split and the pairing.
        steps: The reports of the steps before.
        folder: Where the files go.

    Raises:
        UserError: if a file is missing or malformed, no tuple is left, or there are too few unrelated tuples.
    """
    parts = read_originals(ingredients.originals)
    originals = parts[True] + parts[False]
    others: list[Original] = []
    if dataset == "zsre_alternative":
        others = [it for it in originals if draw(seed, f"unrelated/{it.subject}")[0] % UNRELATED_PART == 0]
    unrelated = {item.id for item in others}
    pool = [item.pair for item in others] if others else read_pool(corpus_of(dataset), ingredients.unrelated)
    edited = [item for item in originals if item.id not in unrelated]
    tuples, dropped = make_tuples(edited, answers_for(dataset, ingredients.alternatives), ingredients.rephrasings, pool)
    if not tuples:
        raise UserError(f"Rebuilding {dataset} leaves no tuple ({dropped}); see the reports of the steps.")
    validation = {item.id for item in parts[True]}
    reported = [item for item in tuples if item.id in validation]
    rest = [item for item in tuples if item.id not in validation]
    splits = deal(rest, reported, shares, seed) if reported else split_tuples(tuples, shares, seed)
    sizes = {name: len(items) for name, items in splits.items()}
    splits = draw_unrelated(splits, pool, sizes, seed)
    write_splits(folder, splits)
    dropped = {"unrelated_tuples": len(others)} | dropped
    report = Report("pair", "prompts", len(originals), dropped, len(tuples))
    counts = {"steps": [asdict(step) for step in (*steps, report)], "unrelated": len(pool), "splits": sizes}
    write_text(folder / "counts.json", json.dumps(counts, indent=2) + "\n")
    write_text(folder / "counts.md", table([*steps, report]))
    return report


def corpus_of(dataset: str) -> Corpus:
    """Return the kind of a dataset's originals."""
    return "fever" if dataset == "fever" else "zsre"


def answers_for(dataset: str, alternatives: Path | None) -> Callable[[Original], str | None]:
    """Return the function from an original to its edit's answer: opposite label, correct answer, wrong one or None."""
    if dataset == "fever":
        return lambda original: OPPOSITE[original.answer]
    if alternatives is None:
        return lambda original: original.answer
    wrong = read_alternatives(alternatives)
    return lambda original: wrong.get(original.id)


def make_tuples(
    originals: Sequence[Original],
    answer_of: Callable[[Original], str | None],
    rephrasings: Sequence[Path],
    pool: Sequence[PromptAnswer],
) -> tuple[list[EditTuple], dict[str, int]]:
    """Return the edit tuples of originals, with a stand-in as unrelated tuple, and how many were dropped and why."""
    equivalent = read_rephrasings(rephrasings)
    rephrased = [original for original in originals if equivalent.get(original.id)]
    answered = [(original, answer) for original in rephrased if (answer := answer_of(original))]
    made = [
        EditTuple(item.id, PromptAnswer(item.prompt, answer), tuple(equivalent[item.id]), stand_in(pool), item.subject)
        for item, answer in answered
    ]
    tuples = without_overlap(made, pool)
    dropped = {
        "no_rephrasing": len(originals) - len(rephrased),
        "no_alternative": len(rephrased) - len(made),
        "also_unrelated": len(made) - len(tuples),
    }
    return tuples, dropped
