"""Filtering the rephrasings of a part of the originals by the answers of a fine-tuned model."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from malmen.data.kilt import Original
from malmen.data.rebuild import all_originals, read_rephrasings, write_rephrasings
from malmen.data.reports import Report
from malmen.data.tuples import PromptAnswer
from malmen.editing.evaluation import score
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.encoding import UnreadableError
from malmen.models.language_model import Example, LanguageModel


def filter_part(
    spec: ModelSpec, originals: Path, rephrasings: Path, batch_size: int, out: Path, machine: Machine
) -> Report:
    """Keep the rephrasings to which the fine-tuned model gives the answer of the original (De Cao et al., 2021).

    An answer is the label of a claim, or the most probable token at each position of the correct answer, given the
    correct tokens before it. (Models are fine-tuned without an end of the answer, so they would not stop generating.)

    Args:
        spec: The model, fine-tuned on the correct answers.
        originals: File of the originals.
        rephrasings: File of the rephrasings of a part of them.
        batch_size: Number of prompts in a batch.
        out: File for the remaining rephrasings, by id of the original.
        machine: Where to run.

    Returns:
        The number of rephrasings dropped, by reason.
    """
    model = spec.load(machine)
    texts = read_rephrasings([rephrasings])
    chosen = [original for original in all_originals(originals) if original.id in texts]
    predictions = predict(model, chosen, texts, batch_size)
    kept: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter({"too_long": 0, "other_prediction": 0})
    for original in chosen:
        right = predictions[original.id, original.prompt]
        kept[original.id] = []
        for text in texts[original.id]:
            prediction = predictions[original.id, text]
            if right is None or prediction is None:
                dropped["too_long"] += 1
            elif torch.equal(right, prediction):
                kept[original.id].append(text)
            else:
                dropped["other_prediction"] += 1
    write_rephrasings(out, kept)
    read = sum(map(len, texts.values()))
    return Report("filter", "rephrasings", read, dict(dropped), sum(map(len, kept.values())))


def predict(
    model: LanguageModel, originals: Sequence[Original], rephrasings: dict[str, list[str]], batch_size: int
) -> dict[tuple[str, str], torch.Tensor | None]:
    """Return the model's answers, (A,), by id of the original and prompt; None if a prompt is too long."""
    asked = [(item, prompt) for item in originals for prompt in (item.prompt, *rephrasings[item.id])]
    encoded = {(item.id, prompt): encode(model, PromptAnswer(prompt, item.answer)) for item, prompt in asked}
    readable = {key: example for key, example in encoded.items() if example}
    if not readable:
        return dict.fromkeys(encoded)
    answers = score(model, list(readable.values()), batch_size).predictions
    return {**dict.fromkeys(encoded), **dict(zip(readable, answers, strict=True))}


def encode(model: LanguageModel, pair: PromptAnswer) -> Example | None:
    """Encode a prompt with its answer; return None if they are too long for the model."""
    try:
        return model.encode_one(pair)
    except UnreadableError:
        return None
