"""The blocks below the edits: found, run once, and no others left out."""

from dataclasses import replace

import pytest
import torch
from tiny_models import TWO_STACKS, architecture_of, encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture
from malmen.editing.blocks import FrozenPrefix
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.models.language_model import Batch, LanguageModel

FIRST_STACK = {
    "bert": "bert.encoder.layer",
    "gpt2": "transformer.h",
    "gptj": "transformer.h",
    "t5": "encoder.block",
    "bart": "model.encoder.layers",
}


def unrelated_batch(model: LanguageModel) -> Batch:
    return next(iter(model.batches(encoded_group(model, 9).unrelated, 9)))


def shifted(layers: list[EditedLayer]) -> PostEditWeights:
    generator = torch.Generator().manual_seed(0)
    return PostEditWeights(
        layers, {layer.name: torch.randn(layer.shape, generator=generator, dtype=torch.float64) for layer in layers}
    )


def after(
    model: LanguageModel, layers: list[EditedLayer], batch: Batch, prefix: FrozenPrefix
) -> tuple[Tensor, list[Tensor]]:
    """Return the divergence after an edit, and its gradient to the weights, when the trunk is run once."""
    with torch.no_grad(), prefix.recording() as states:
        before = model.answer_logits(batch)
    with shifted(layers).applied() as weights, prefix.resuming(states):
        loss = model.divergence(batch, before)
        return loss.detach(), list(torch.autograd.grad(loss, weights))


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_run_from_the_trunk_on_is_a_whole_run(model: LanguageModel, last: int) -> None:
    layers, batch = ffn_layers(model, last=last), unrelated_batch(model)
    prefix = FrozenPrefix.of(model, layers)
    found, expected = after(model, layers, batch, prefix), after(model, layers, batch, FrozenPrefix(None))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert expected[0] > 1e-3


@pytest.mark.parametrize("last", [1, 2])
def test_the_blocks_below_are_run_once(model: LanguageModel, last: int) -> None:
    layers, batch = ffn_layers(model, last=last), unrelated_batch(model)
    prefix = FrozenPrefix.of(model, layers)
    stack = list(model.module.get_submodule(FIRST_STACK[architecture_of(model)]).children())
    calls = [0] * len(stack)

    def counting(number: int) -> object:
        inner = next(module for name, module in stack[number].named_modules() if name and not list(module.children()))
        return inner.register_forward_hook(lambda *_: calls.__setitem__(number, calls[number] + 1))

    for number in range(len(stack)):
        counting(number)
    after(model, layers, batch, prefix)
    once = calls[0]
    assert once > 0
    assert calls == [once] * (3 - last) + [2 * once] * last


def test_no_block_lies_below_an_edit_of_the_first(model: LanguageModel) -> None:
    assert FrozenPrefix.of(model, ffn_layers(model, last=3)).last is None
    assert FrozenPrefix.of(model, [*ffn_layers(model, last=1), *ffn_layers(model, last=3)]).last is None


def test_a_layer_in_no_numbered_block_means_whole_runs(model: LanguageModel) -> None:
    layers = ffn_layers(model, last=1)
    assert FrozenPrefix.of(model, layers).last is not None
    assert FrozenPrefix.of(model, [*layers, replace(layers[0], name="head")]).last is None


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_a_decoder_edited_alone_is_resumed(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    layers = [layer for layer in ffn_layers(model, last=1) if model.in_decoder(layer.module)]
    batch = unrelated_batch(model)
    prefix = FrozenPrefix.of(model, layers)
    assert prefix.last is not None and prefix.last.module in list(model.module.get_decoder().modules())
    found, expected = after(model, layers, batch, prefix), after(model, layers, batch, FrozenPrefix(None))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
