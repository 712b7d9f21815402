"""FT against a plain loop of AdamW."""

import copy
import math
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import encoded_group, ffn_layers, tiny_model

from malmen.config.finetuning import FineTuningSettings
from malmen.editing.blocks import FrozenPrefix
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import PostEditWeights, select_layers
from malmen.errors import DivergedError
from malmen.models.language_model import Example, LanguageModel

SETTINGS = FineTuningSettings(epochs=3, learning_rate=5e-3)


def plainly_tuned(model: LanguageModel, names: list[str], edits: list[Example], seed: int) -> dict[str, torch.Tensor]:
    """Return the weights after AdamW on shuffled minibatches of 32, one sequence at a time."""
    module = copy.deepcopy(model.module)
    weights = {name: module.get_parameter(f"{name}.weight").requires_grad_(True) for name in names}
    optimiser = torch.optim.AdamW(weights.values(), lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    rng = random.Random(seed)
    for _ in range(SETTINGS.epochs):
        order = rng.sample(edits, len(edits))
        for start in range(0, len(order), 32):
            nll = torch.cat([answer_nll(module, example) for example in order[start : start + 32]])
            optimiser.zero_grad()
            nll.mean().backward()
            optimiser.step()
    return {name: weight.detach() for name, weight in weights.items()}


def answer_nll(module: torch.nn.Module, example: Example) -> torch.Tensor:
    decoder = {"decoder_input_ids": torch.tensor([example.decoder_tokens])} if example.decoder_tokens else {}
    output = module(input_ids=torch.tensor([example.tokens]), **decoder)
    if isinstance(output, torch.Tensor):  # The fact checker's log-odds.
        return F.binary_cross_entropy_with_logits(output[0], torch.tensor(example.targets).double(), reduction="none")
    logits = output.logits[0, list(example.answer_positions)]
    return F.cross_entropy(logits, torch.tensor(example.targets), reduction="none")


@pytest.mark.parametrize("last", [1, 3])
def test_the_shifts_are_what_a_plain_loop_adds_and_the_model_is_untouched(model: LanguageModel, last: int) -> None:
    layers = [*ffn_layers(model, "first", last=last), *ffn_layers(model, "second", last=last)]
    edits = encoded_group(model, 40).edit
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    shifts = FineTuningEditor(layers, SETTINGS, seed=3).shifts(model, edits)
    tuned = plainly_tuned(model, [layer.name for layer in layers], edits, seed=3)
    for layer in layers:
        assert shifts[layer.name].shape == layer.shape
        torch.testing.assert_close(
            layer.orient(shifts[layer.name]), tuned[layer.name] - layer.weight, atol=1e-9, rtol=0
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.module.parameters())


def test_the_order_depends_on_the_seed_alone(bert: LanguageModel) -> None:
    layers = ffn_layers(bert, last=1)
    edits = encoded_group(bert, 40).edit
    first, again, other = (
        FineTuningEditor(layers, SETTINGS, seed).shifts(bert, edits)[layers[0].name] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_in_bfloat16_the_shift_leads_exactly_to_the_tuned_weight() -> None:
    model, copied = tiny_model("gpt2", torch.bfloat16), tiny_model("gpt2", torch.bfloat16)
    layers, edits = ffn_layers(model), encoded_group(model, 20).edit
    shifts = FineTuningEditor(layers, SETTINGS, seed=0).shifts(model, edits)
    tuned = plainly_tuned_in_batches(copied, [layer.name for layer in layers], edits)
    with PostEditWeights(layers, shifts).applied() as weights:
        for layer, weight in zip(layers, weights, strict=True):
            assert torch.equal(weight, tuned[layer.name])


def plainly_tuned_in_batches(model: LanguageModel, names: list[str], edits: list[Example]) -> dict[str, torch.Tensor]:
    """Return the tuned weights by the same operations, done in place on a model of its own."""
    layers = [layer for name in names for layer in select_layers(model.module, name)]
    weights = [layer.weight.requires_grad_(True) for layer in layers]
    optimiser = torch.optim.AdamW(weights, lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    rng = random.Random(0)
    for _ in range(SETTINGS.epochs):
        order = rng.sample(edits, len(edits))
        optimiser.zero_grad()
        model.loss(model.collate(order, range(len(order)))).backward()
        optimiser.step()
    return {layer.name: layer.weight.detach() for layer in layers}


def test_weights_that_are_not_finite_are_divergence(bert: LanguageModel) -> None:
    (layer,) = ffn_layers(bert, last=1)
    settings = FineTuningSettings(epochs=1, learning_rate=math.inf)
    with pytest.raises(DivergedError, match=layer.name):
        FineTuningEditor([layer], settings, seed=0).shifts(bert, encoded_group(bert, 8).edit)


def test_a_loss_that_is_not_finite_stops_at_once(bert: LanguageModel) -> None:
    (layer,) = ffn_layers(bert, last=1)
    before = layer.weight.clone()
    settings = FineTuningSettings(epochs=5, learning_rate=math.inf)
    with pytest.raises(DivergedError, match="loss of fine-tuning is not finite at step 2"):
        FineTuningEditor([layer], settings, seed=0).shifts(bert, encoded_group(bert, 8).edit)
    assert torch.equal(layer.weight, before)


def test_the_blocks_before_the_tuned_ones_run_once_for_each_edit(model: LanguageModel) -> None:
    layers, edits = ffn_layers(model, "second", last=1), encoded_group(model, 40).edit
    FrozenPrefix.of(model, layers)  # tries once whether the model can start after these blocks
    first_block = ffn_layers(model, "first", last=3)[0].module
    sequences: list[int] = []
    with first_block.register_forward_hook(lambda _module, _inputs, output: sequences.append(len(output))):
        FineTuningEditor(layers, SETTINGS, seed=3).shifts(model, edits)
    assert sum(sequences) == (SETTINGS.epochs * len(edits) if model.two_stacks else len(edits))


def test_tuning_ends_after_the_first_epoch_that_is_good_enough(bert: LanguageModel) -> None:
    layers, edits = ffn_layers(bert), encoded_group(bert, 40).edit
    once = FineTuningEditor(layers, replace(SETTINGS, epochs=1), seed=3).shifts(bert, edits)
    early = FineTuningEditor(layers, SETTINGS, seed=3, enough=math.inf).shifts(bert, edits)
    whole, never = (FineTuningEditor(layers, SETTINGS, 3, enough).shifts(bert, edits) for enough in (0.0, 1e-9))
    for name, shift in once.items():
        assert torch.equal(early[name], shift)
        assert torch.equal(whole[name], never[name]) and not torch.equal(whole[name], shift)
