"""What is captured: every row that it should be, no padding, and the gradients that autograd gives."""

import pytest
import torch
from tiny_models import ARCHITECTURES, TWO_STACKS, encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture, FfnLayer, Tokens
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.data.tuples import PromptAnswer
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.layers import EditedLayer
from malmen.editing.rows import whole
from malmen.models.language_model import Example, LanguageModel


def by_length(examples: list[Example]) -> list[Example]:
    """Return the examples in the order in which they are run."""
    return sorted(examples, key=lambda example: (len(example.tokens), len(example.decoder_tokens)))


def alone(example: Example) -> dict[str, Tensor]:
    """Return the model's inputs for one example, without padding."""
    inputs = {"input_ids": torch.tensor([example.tokens])}
    if example.decoder_tokens:
        inputs["decoder_input_ids"] = torch.tensor([example.decoder_tokens])
    return inputs


def keys_and_gradients(
    model: LanguageModel, layer: EditedLayer, examples: list[Example], tokens: Tokens
) -> tuple[Tensor, Tensor]:
    """Run one example at a time, without padding, and look at the layer's input and output with plain autograd."""
    keys, gradients = [], []
    for example in examples:
        seen: list[Tensor] = []

        def look(_: object, inputs: tuple[Tensor], output: Tensor, seen: list[Tensor] = seen) -> Tensor:
            output = output.detach().requires_grad_()
            seen += [inputs[0][0], output]
            return output

        with layer.module.register_forward_hook(look):
            logits = model.task.logits(model.module, alone(example), torch.tensor(example.answer_positions))
            nll = model.task.negative_log_likelihood(logits, torch.tensor(example.targets))
        (gradient,) = torch.autograd.grad(example.weight * nll.sum(), seen[1])
        everything = range(seen[0].shape[0])
        positions = list(example.answer_positions if tokens == "answer" and not model.two_stacks else everything)
        keys.append(seen[0][positions].detach())
        gradients.append(gradient[0, positions])
    return torch.cat(keys), torch.cat(gradients)


def close(found: KeysAndGradients, expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close((found.keys, found.gradients), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("tokens", ["answer", "all"])
def test_keys_and_gradients_are_those_of_the_right_positions(
    model: LanguageModel, tokens: Tokens, batch_size: int
) -> None:
    edits = encoded_group(model, 40).edit
    layers = [*ffn_layers(model, "first"), *ffn_layers(model, "second")]
    captured = capture(model, layers, edits, HyperNetworkSettings(tokens=tokens, batch_size=batch_size))
    assert list(captured) == [layer.name for layer in layers]
    for layer in layers:
        close(captured[layer.name], keys_and_gradients(model, layer, by_length(edits), tokens))


@pytest.mark.parametrize("kind", ["first", "second"])
def test_keys_times_gradients_sum_to_the_weight_gradient(model: LanguageModel, kind: FfnLayer) -> None:
    edits = encoded_group(model, 40).edit
    layers = ffn_layers(model, kind)
    captured = capture(model, layers, edits, HyperNetworkSettings(tokens="all", batch_size=7))
    for layer in layers:
        layer.weight.requires_grad_(True)
    (everything,) = model.batches(edits, 64)
    expected = torch.autograd.grad(model.loss(everything), [layer.weight for layer in layers])
    for layer, gradient in zip(layers, expected, strict=True):
        rows = captured[layer.name]
        torch.testing.assert_close(
            whole(rows.keys).T @ whole(rows.gradients), layer.orient(gradient), rtol=1e-9, atol=1e-12
        )


def test_no_padding_is_captured(model: LanguageModel) -> None:
    edits = encoded_group(model, 40).edit
    assert len({len(example.tokens) for example in edits}) > 3
    layer = ffn_layers(model, last=1)[0]
    everything = capture(model, [layer], edits, HyperNetworkSettings(tokens="all", batch_size=64))[layer.name]
    answers = capture(model, [layer], edits, HyperNetworkSettings(tokens="answer", batch_size=64))[layer.name]
    n_tokens = sum(len(example.tokens) for example in edits)
    assert len(everything.keys) == len(everything.gradients) == n_tokens
    expected = n_tokens if model.two_stacks else sum(len(example.targets) for example in edits)
    assert len(answers.keys) == len(answers.gradients) == expected


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_of_a_decoder_every_position_from_the_start_token_on_is_captured(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    edits = encoded_group(model, 40).edit
    assert sum(len(e.tokens) for e in edits) != (n_tokens := sum(len(e.decoder_tokens) for e in edits))
    encoder, decoder = ffn_layers(model, last=1)
    assert (model.in_decoder(encoder.module), model.in_decoder(decoder.module)) == (False, True)
    assert (
        len(capture(model, [decoder], edits, HyperNetworkSettings(tokens="answer", batch_size=7))[decoder.name].keys)
        == n_tokens
    )


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_answers_longer_than_the_questions_are_captured(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    edits = model.encode([PromptAnswer("Who", "the quick brown fox jumps over the lazy dog")] * 3)
    assert len(edits[0].decoder_tokens) > len(edits[0].tokens)
    layers = ffn_layers(model)
    captured = capture(model, layers, edits, HyperNetworkSettings(tokens="answer", batch_size=3))
    for layer in layers:
        close(captured[layer.name], keys_and_gradients(model, layer, edits, "answer"))


def test_of_a_claim_only_cls_is_captured(bert: LanguageModel) -> None:
    edits = encoded_group(bert, 40).edit
    assert {example.answer_positions for example in edits} == {(0,)}
    (layer,) = ffn_layers(bert, last=1)
    assert capture(bert, [layer], edits, HyperNetworkSettings(tokens="answer", batch_size=16))[
        layer.name
    ].keys.shape == (40, 64)


def test_capturing_leaves_neither_hooks_nor_gradients_nor_other_outputs(model: LanguageModel) -> None:
    edits = encoded_group(model, 8).edit
    (batch,) = model.batches(edits, 8)
    before = model.answer_logits(batch)
    layers = ffn_layers(model, last=1)
    capture(model, layers, edits, HyperNetworkSettings(tokens="answer", batch_size=8))
    after = model.answer_logits(batch)
    assert torch.equal(after, before) and not after.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())
    assert all(parameter.grad is None for parameter in model.module.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_in_bfloat16_is_captured_in_float32(architecture: Architecture) -> None:
    model = tiny_model(architecture, torch.bfloat16)
    layer = ffn_layers(model, last=1)[0]
    captured = capture(
        model, [layer], encoded_group(model, 8).edit, HyperNetworkSettings(tokens="answer", batch_size=8)
    )[layer.name]
    assert captured.keys.dtype == captured.gradients.dtype == torch.float32
