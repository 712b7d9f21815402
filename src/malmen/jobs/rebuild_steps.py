"""The steps of rebuilding the data that run a model, on a part of the originals each: back-translation, filtering."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from malmen.config.translation import TranslationSettings
from malmen.data.kilt import Original
from malmen.data.rebuild import OriginalsPart, all_originals, distinct, read_rephrasings, write_rephrasings
from malmen.data.reports import Report
from malmen.data.tuples import PromptAnswer
from malmen.editing.evaluation import score
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.language_model import Example, LanguageModel
from malmen.models.translation import back_translate, load_translator


def translate_part(
    originals: Path,
    part: OriginalsPart,
    forward: Path,
    backward: Path,
    settings: TranslationSettings,
    out: Path,
    machine: Machine,
) -> Report:
    """Translate a part of the originals and back, and write the different rephrasings that come of it.

    Args:
        originals: The originals (:func:`malmen.data.rebuild.select_originals`).
        part: Which of them.
        forward: Directory of the model that translates to the other language.
        backward: Directory of the one that translates back.
        settings: How.
        out: Gets the rephrasings by the originals' ids.
        machine: Where to run.

    Returns:
        How many candidates were dropped, and why.

    Raises:
        UserError: if a model cannot be loaded.
    """
    machine.set_up()
    there, back = (load_translator(directory, settings, machine.device) for directory in (forward, backward))
    some = part(all_originals(originals))
    candidates = back_translate([original.prompt for original in some], there, back)
    rephrasings: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter({"empty": 0, "same_as_the_original": 0, "repeated": 0})
    for original, texts in zip(some, candidates, strict=True):
        rephrasings[original.id], reasons = distinct(original.prompt, texts)
        dropped.update(reasons)
    write_rephrasings(out, rephrasings)
    return report("back-translate", sum(map(len, candidates)), dropped, rephrasings)


def filter_part(
    spec: ModelSpec, originals: Path, rephrasings: Path, batch_size: int, out: Path, machine: Machine
) -> Report:
    """Keep the rephrasings that the fine-tuned model answers as it answers the original (De Cao et al., 2021).

    What it answers is the label of a claim, or the most probable token at each place of the correct answer, given that
    answer's tokens before it: models are fine-tuned without an end of the answer, so they would not stop by themselves.

    Args:
        spec: The model, which was taught the correct answers.
        originals: The originals.
        rephrasings: The rephrasings of a part of them.
        batch_size: Prompts run through the model at once.
        out: Gets the rephrasings that are left, by the originals' ids.
        machine: Where to run.

    Returns:
        How many rephrasings were dropped, and why.
    """
    model = spec.load(machine)
    texts = read_rephrasings([rephrasings])
    some = [original for original in all_originals(originals) if original.id in texts]
    predictions = predict(model, some, texts, batch_size)
    kept: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter({"too_long": 0, "other_prediction": 0})
    for original in some:
        right = predictions[original.id, original.prompt]
        found = texts[original.id]
        kept[original.id] = [text for text in found if agrees(right, predictions[original.id, text], dropped)]
    write_rephrasings(out, kept)
    return report("filter", sum(map(len, texts.values())), dropped, kept)


def predict(
    model: LanguageModel, originals: Sequence[Original], rephrasings: dict[str, list[str]], batch_size: int
) -> dict[tuple[str, str], torch.Tensor | None]:
    """Return what the model answers, by an original's id and prompt; None to a prompt longer than the model reads."""
    asked = [(item, prompt) for item in originals for prompt in (item.prompt, *rephrasings[item.id])]
    encoded = {(item.id, prompt): encode(model, PromptAnswer(prompt, item.answer)) for item, prompt in asked}
    readable = {key: example for key, example in encoded.items() if example}
    if not readable:
        return dict.fromkeys(encoded)
    answers = score(model, list(readable.values()), batch_size).predictions
    return {**dict.fromkeys(encoded), **dict(zip(readable, answers, strict=True))}


def encode(model: LanguageModel, pair: PromptAnswer) -> Example | None:
    """Encode a prompt with its answer; None if both are longer than the model reads."""
    try:
        return model.task.encode(pair, model)
    except UserError:
        return None


def agrees(right: torch.Tensor | None, prediction: torch.Tensor | None, dropped: Counter[str]) -> bool:
    """Whether a rephrasing is answered as the original is; counts why not."""
    if right is None or prediction is None:
        dropped["too_long"] += 1
        return False
    same = torch.equal(right, prediction)
    dropped["other_prediction"] += not same
    return same


def report(step: str, read: int, dropped: Counter[str], kept: dict[str, list[str]]) -> Report:
    """Return the counts of a step on rephrasings."""
    return Report(step, "rephrasings", read, dict(dropped), sum(map(len, kept.values())))
