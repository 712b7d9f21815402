"""Everything that the package does with a model, tried on one family."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tiny_models import edit_tuples
from torch import Tensor
from transformers import AutoModelForCausalLM

from malmen.config.finetuning import FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.config.memit import MemitSettings
from malmen.editing.capture import capture
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.memit.covariance import collect_key_covariance, encode_texts
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, encode_group
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model

N = 12
MALMEN = HyperNetworkSettings(rank=4, blocks=1, learning_rate=1e-3, batch_size=5)
MEMIT = MemitSettings(steps=4, learning_rate=0.05, covariance_weight=1.0, prefix_starts=("The",), prefix_tokens=3)


@dataclass
class Outcome:
    """What a family can do; the table of the documentation has a line for each.

    Attributes:
        layers: the layers that are chosen by default, as a pattern.
        works: what came out right.
        refused: what is refused, with the reason.
    """

    layers: str = ""
    works: tuple[str, ...] = ()
    refused: str = ""


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether two matrices agree up to rounding in float32."""
    return bool((found - expected).norm() <= tolerance * expected.norm())


def group_of(model: LanguageModel) -> EncodedGroup:
    return encode_group(
        model, [replace(t, subject=t.edit.prompt.split(" ")[2]) for t in edit_tuples("gpt2", N)], random.Random(0)
    )


def check_parity(model: LanguageModel, layers: list[EditedLayer], edits: list[Any]) -> None:
    """Keys, gradients and key covariance do not depend on the batch size."""
    for tokens in ("answer", "all"):
        one, twelve = (
            capture(model, layers, edits, HyperNetworkSettings(tokens=tokens, batch_size=size)) for size in (1, N)
        )
        for layer in layers:
            assert close(whole(twelve[layer.name].keys), whole(one[layer.name].keys)), "keys"
            assert close(whole(twelve[layer.name].gradients), whole(one[layer.name].gradients)), "gradients"
            assert float(whole(one[layer.name].gradients).norm()) > 0, "no gradient"


def covariances(model: LanguageModel, layers: list[EditedLayer]) -> dict[str, Tensor]:
    texts = [text for t in edit_tuples("gpt2", N) for text in (t.edit.prompt, t.unrelated.prompt)]
    one, twelve = (collect_key_covariance(model, layers, encode_texts(model, texts, 9999), size)[0] for size in (1, N))
    for name in one:
        assert close(twelve[name], one[name]), "covariance"
    return one


def check_malmen(model: LanguageModel, layers: list[EditedLayer], group: EncodedGroup) -> None:
    editor = HyperNetworkEditor.create(layers, MALMEN, 0)
    losses = MetaTrainer(model, editor, TrainingSettings()).step(group)
    assert losses.gradient_norm > 0, "no meta-gradient"
    shifts = editor.shifts(model, group.edit)
    assert all(shift.norm() > 0 for shift in shifts.values()), "no shift"


def check_memit(model: LanguageModel, layers: list[EditedLayer], group: EncodedGroup) -> None:
    covariance = {name: c + 1e-3 * torch.eye(len(c)) for name, c in covariances(model, layers).items()}
    editor = MemitEditor(layers, MEMIT, covariance, 0)
    shifts = editor.shifts(model, group.edit[:3])
    assert all(shift.norm() > 0 for shift in shifts.values()), "no shift"


def check_fine_tuning(model: LanguageModel, layers: list[EditedLayer], group: EncodedGroup, folder: Path) -> None:
    """Fine-tuning lowers its loss; the edited model is the same after it is saved and loaded, and when it generates."""
    batch = model.collate(group.edit, range(N))
    before = float(model.loss(batch))
    weights = PostEditWeights(
        layers, FineTuningEditor(layers, FineTuningSettings(3, 1e-2), 0).shifts(model, group.edit)
    )
    with weights.applied(), torch.no_grad():
        after, logits = float(model.loss(batch)), model.answer_logits(batch)
        model.module.save_pretrained(folder / "edited")
        said = generate(model.module, model.tokenizer)
    assert after < before, "fine-tuning"
    again = AutoModelForCausalLM.from_pretrained(folder / "edited", dtype=torch.float32)
    model.tokenizer.save_pretrained(folder / "edited")
    loaded = load_model(folder / "edited", "question_answering")
    with torch.no_grad():
        assert close(loaded.answer_logits(batch), logits, 1e-5), "reload"
    assert generate(again.eval(), model.tokenizer) == said, "generate"


def generate(module: Any, tokenizer: Any) -> list[int]:
    ids = torch.tensor([tokenizer("Where did Ada Lund")["input_ids"]])
    said: list[int] = module.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0
    )[0].tolist()
    return said
