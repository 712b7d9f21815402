"""What is captured: every row that it should be, no padding, and the gradients that autograd gives."""

import pytest
import torch
from tiny_models import encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.editing.capture import Captured, capture
from malmen.editing.layers import EditedLayer
from malmen.models.language_model import Example, LanguageModel
from malmen.settings import FfnLayer, Tokens


def by_length(examples: list[Example]) -> list[Example]:
    """Return the examples in the order in which they are run."""
    return sorted(examples, key=lambda example: len(example.tokens))


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
            ids = torch.tensor([example.tokens])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = model.task.logits(model.module, inputs, torch.tensor(example.answer_positions))
            nll = model.task.negative_log_likelihood(logits, torch.tensor(example.targets))
        (gradient,) = torch.autograd.grad(example.weight * nll.sum(), seen[1])
        positions = list(example.answer_positions if tokens == "answer" else range(len(example.tokens)))
        keys.append(seen[0][positions].detach())
        gradients.append(gradient[0, positions])
    return torch.cat(keys), torch.cat(gradients)


def close(found: Captured, expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close((found.keys, found.gradients), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("tokens", ["answer", "all"])
def test_keys_and_gradients_are_those_of_the_right_positions(
    model: LanguageModel, tokens: Tokens, batch_size: int
) -> None:
    edits = encoded_group(model, 40).edits
    layers = [*ffn_layers(model, "first"), *ffn_layers(model, "second")]
    captured = capture(model, layers, edits, tokens, batch_size)
    assert list(captured) == [layer.name for layer in layers]
    for layer in layers:
        close(captured[layer.name], keys_and_gradients(model, layer, by_length(edits), tokens))


@pytest.mark.parametrize("kind", ["first", "second"])
def test_keys_times_gradients_sum_to_the_weight_gradient(model: LanguageModel, kind: FfnLayer) -> None:
    edits = encoded_group(model, 40).edits
    layers = ffn_layers(model, kind)
    captured = capture(model, layers, edits, "all", 7)
    for layer in layers:
        layer.weight.requires_grad_(True)
    (whole,) = model.batches(edits, 64)
    expected = torch.autograd.grad(model.loss(whole), [layer.weight for layer in layers])
    for layer, gradient in zip(layers, expected, strict=True):
        rows = captured[layer.name]
        torch.testing.assert_close(rows.keys.T @ rows.gradients, layer.orient(gradient), rtol=1e-9, atol=1e-12)


def test_no_padding_is_captured(model: LanguageModel) -> None:
    edits = encoded_group(model, 40).edits
    assert len({len(example.tokens) for example in edits}) > 3
    (layer,) = ffn_layers(model, last=1)
    everything = capture(model, [layer], edits, "all", 64)[layer.name]
    answers = capture(model, [layer], edits, "answer", 64)[layer.name]
    assert len(everything.keys) == len(everything.gradients) == sum(len(example.tokens) for example in edits)
    assert len(answers.keys) == len(answers.gradients) == sum(len(example.targets) for example in edits)


def test_of_a_claim_only_cls_is_captured(bert: LanguageModel) -> None:
    edits = encoded_group(bert, 40).edits
    assert {example.answer_positions for example in edits} == {(0,)}
    (layer,) = ffn_layers(bert, last=1)
    assert capture(bert, [layer], edits, "answer", 16)[layer.name].keys.shape == (40, 64)


def test_capturing_leaves_neither_hooks_nor_gradients_nor_other_outputs(model: LanguageModel) -> None:
    edits = encoded_group(model, 8).edits
    (batch,) = model.batches(edits, 8)
    before = model.answer_logits(batch)
    (layer,) = ffn_layers(model, last=1)
    capture(model, [layer], edits, "answer", 8)
    after = model.answer_logits(batch)
    assert torch.equal(after, before) and not after.requires_grad
    assert not layer.module._forward_hooks
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_a_model_in_bfloat16_is_captured_in_float32() -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    (layer,) = ffn_layers(model, last=1)
    captured = capture(model, [layer], encoded_group(model, 8).edits, "answer", 8)[layer.name]
    assert captured.keys.dtype == captured.gradients.dtype == torch.float32
