"""What is left out because only answer rows are looked at: it must not change a single answer, loss or gradient."""

from dataclasses import replace

import torch
from tiny_models import TWO_STACKS, architecture_of, encoded_group, ffn_layers, tiny_model

from malmen.models.language_model import Batch, LanguageModel


def batch_of(model: LanguageModel) -> Batch:
    examples = encoded_group(model, 9).edit
    assert len({len(example.tokens) for example in examples}) > 2
    return next(model.batches(examples, 9))


def test_logits_and_gradients_are_those_of_the_whole_last_block(model: LanguageModel) -> None:
    batch = batch_of(model)
    layers = [*ffn_layers(model, "first"), *ffn_layers(model, "second")]
    weights = [layer.weight.requires_grad_() for layer in layers]
    found = model.answer_logits(batch)
    expected = model.task.logits(model.module, batch.inputs, batch.answer_rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(logits.square().sum(), weights) for logits in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    assert all(gradient.any() for gradient in gradients[0])


def test_logits_in_float32_are_those_of_the_whole_last_block() -> None:
    model = tiny_model("gpt2", torch.float32)
    batch = batch_of(model)
    expected = model.task.logits(model.module, batch.inputs, batch.answer_rows)
    torch.testing.assert_close(model.answer_logits(batch), expected, rtol=1e-4, atol=1e-4)


def test_the_last_feed_forward_network_sees_answer_rows_unless_looked_at_everywhere(model: LanguageModel) -> None:
    batch = batch_of(model)
    (*_, last) = ffn_layers(model, "second")
    seen: list[torch.Size] = []
    whole = next(iter(batch.inputs.values())).shape
    with last.module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[:-1])):
        model.answer_logits(batch)
        model.answer_logits(replace(batch, everywhere=True))
    if architecture_of(model) in TWO_STACKS:
        assert seen[0] == seen[1] == batch.inputs["decoder_input_ids"].shape
    else:
        assert seen == [(len(batch.answer_rows),), whole]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_behind_prompts_only_answers_are_left_of_a_decoder_only_model(model: LanguageModel) -> None:
    batch = batch_of(model)
    left = model.after_prompts(batch)
    torch.testing.assert_close(model.answer_logits(left), model.answer_logits(batch), rtol=1e-12, atol=1e-12)
    if architecture_of(model) in ("gpt2", "gptj"):
        longest = int(batch.examples.bincount().max())
        assert left.inputs["input_ids"].shape == (9, longest)
        assert longest < batch.inputs["input_ids"].shape[1]
    else:
        assert left is batch


def test_behind_other_places_and_as_often_as_asked_the_answers_are_the_same(gpt2: LanguageModel) -> None:
    batch = batch_of(gpt2)
    expected = gpt2.answer_logits(batch)
    left = gpt2.after(batch, torch.tensor([0, 1, 2, 0, 3, 1, 2, 2, 0]))
    assert left.inputs["input_ids"].shape == batch.inputs["input_ids"].shape
    for _ in range(2):
        torch.testing.assert_close(gpt2.answer_logits(left), expected, rtol=1e-12, atol=1e-12)
    assert gpt2.after(batch, torch.zeros(9, dtype=torch.long)) is batch
