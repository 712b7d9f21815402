"""Everything that the package does with a model, tried on one family."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from families import tiny
from tiny_models import edit_tuples, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from malmen.config.finetuning import FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.config.memit import MemitSettings
from malmen.editing.capture import capture
from malmen.editing.feed_forward import choose_layers
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer, PostEditWeights, as_patterns
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.memit.covariance import collect_key_covariance, encode_texts
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.rows import whole
from malmen.editing.training import MetaTrainer, encode_group
from malmen.errors import UserError
from malmen.models.language_model import Example, LanguageModel
from malmen.models.load import load_model

N = 12
TUPLES = [
    replace(t, subject=t.edit.prompt.removeprefix("Where did ").split(" write")[0]) for t in edit_tuples("gpt2", N)
]
MALMEN = HyperNetworkSettings(rank=4, blocks=1, learning_rate=1e-3, batch_size=5)
MEMIT = MemitSettings(steps=3, learning_rate=0.05, covariance_weight=1.0, prefix_starts=("The",), prefix_tokens=3)


@dataclass
class Outcome:
    """What can be done with a family.

    Attributes:
        layers: the layers that are chosen by default, as patterns.
        cells: for each thing that can be done, "yes", "no" if it is refused, or a remark.
        reason: why something is refused.
    """

    layers: Sequence[str] = ()
    cells: dict[str, str] = field(default_factory=lambda: dict.fromkeys(DONE, "no"))
    reason: str = ""


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer("gpt2")


def examine(family: str, folder: Path) -> Outcome:
    """Try all that the package does with a new model of a family.

    Raises:
        AssertionError: if something is wrong that is not refused.
    """
    tiny(family, len(tokenizer())).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    outcome = Outcome()
    try:
        model = load_model(folder, "question_answering")
        layers = choose_layers(model, (), 2)
    except UserError as error:
        return replace(outcome, reason=first_clause(error).replace(f"{folder} ", ""))
    outcome.layers = as_patterns(layers)
    for name, check in DONE.items():
        try:
            outcome.cells[name] = check(model, layers) or "yes"
        except UserError as error:
            outcome.reason = outcome.reason or first_clause(error)
    return outcome


def first_clause(error: UserError) -> str:
    """Return what is wrong, without the advice."""
    return str(error).split(";")[0].split(" (Unrecognized")[0]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether two matrices agree up to rounding in float32."""
    return bool((found - expected).norm() <= tolerance * expected.norm())


def edits_of(model: LanguageModel) -> list[Example]:
    return encode_group(model, TUPLES, random.Random(0)).edit


def check_capture(model: LanguageModel, layers: list[EditedLayer]) -> None:
    """Keys, gradients and key covariance do not depend on the batch size."""
    check_layers(model, layers, "all")
    edits = edits_of(model)
    one, twelve = (
        capture(model, layers, edits, HyperNetworkSettings(tokens="all", batch_size=size)) for size in (1, N)
    )
    for layer in layers:
        assert close(whole(twelve[layer.name].keys), whole(one[layer.name].keys)), f"keys of {layer.name}"
        expected = whole(one[layer.name].gradients)
        assert expected.norm() > 0 and close(whole(twelve[layer.name].gradients), expected), (
            f"gradients of {layer.name}"
        )
    alone, together = (covariance(model, layers, size) for size in (1, N))
    for name, matrix in alone.items():
        assert close(together[name], matrix), f"key covariance of {name}"


def covariance(model: LanguageModel, layers: list[EditedLayer], batch_size: int) -> dict[str, Tensor]:
    texts = [text for t in TUPLES for text in (t.edit.prompt, t.unrelated.prompt)]
    return collect_key_covariance(model, layers, encode_texts(model, texts, 9999), batch_size)[0]


def check_malmen(model: LanguageModel, layers: list[EditedLayer]) -> None:
    """A training step has a gradient, and an edit is a shift of every layer."""
    check_layers(model, layers, "answer")
    editor, group = HyperNetworkEditor.create(layers, MALMEN, 0), encode_group(model, TUPLES, random.Random(0))
    assert MetaTrainer(model, editor, TrainingSettings()).step(group).gradient_norm > 0
    assert all(shift.norm() > 0 for shift in editor.shifts(model, group.edit).values())


def check_memit(model: LanguageModel, layers: list[EditedLayer]) -> None:
    """Each layer below the last block, whose states later positions read, is shifted."""
    below = layers[:-1] or layers
    check_layers(model, below, "all")
    key_covariance = {name: c + 1e-3 * torch.eye(len(c)) for name, c in covariance(model, below, N).items()}
    shifts = MemitEditor(below, MEMIT, key_covariance, 0).shifts(model, edits_of(model)[:3])
    assert all(shift.norm() > 0 for shift in shifts.values())


def check_fine_tuning(model: LanguageModel, layers: list[EditedLayer]) -> None:
    """Fine-tuning lowers the loss."""
    edits = edits_of(model)
    batch, tuned = model.collate(edits, range(N)), fine_tuned(model, layers, edits)
    with torch.no_grad():
        before = model.loss(batch)
        with tuned.applied():
            assert model.loss(batch) < before


def fine_tuned(model: LanguageModel, layers: list[EditedLayer], edits: list[Example]) -> PostEditWeights:
    return PostEditWeights(layers, FineTuningEditor(layers, FineTuningSettings(2, 1e-2), 0).shifts(model, edits))


def check_reload(model: LanguageModel, layers: list[EditedLayer]) -> str:
    """An edited model answers alike once it is saved and loaded, also where it generates."""
    edits, folder = edits_of(model), Path(str(model.module.config.name_or_path)) / "edited"
    batch = model.collate(edits, range(N))
    with fine_tuned(model, layers, edits).applied(), torch.no_grad():
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        expected, said = model.answer_logits(batch), generate(model)
    loaded = load_model(folder, "question_answering")
    with torch.no_grad():
        assert close(loaded.answer_logits(batch), expected, 1e-5)
    assert generate(loaded) == said
    return "yes" if said else "yes, but transformers cannot let it generate"


def generate(model: LanguageModel) -> list[int]:
    """Return what the model says after a prompt; nothing if transformers fails."""
    ids = model.tensor([model.tokenizer(TUPLES[0].edit.prompt)["input_ids"]])
    module: Any = model.module
    try:
        said: list[int] = module.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0
        )[0].tolist()
    except Exception:
        return []
    return said


DONE: dict[str, Callable[[LanguageModel, list[EditedLayer]], str | None]] = {
    "Keys, gradients, covariance": check_capture,
    "MALMEN": check_malmen,
    "FT": check_fine_tuning,
    "MEMIT": check_memit,
    "Saved, loaded, generates": check_reload,
}
