"""Fine-tuning with the settings of LocFT-BF: its loss, when it steps and ends, and the end of an answer."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import SHAPES, encoded_group, ffn_layers, tiny_model, tiny_tokenizer
from torch import Tensor

from malmen.config.finetuning import FineTuningSettings
from malmen.editing.finetuning import FineTuningEditor, Losses, weighted
from malmen.editing.layers import PostEditWeights, Shifts
from malmen.errors import DivergedError
from malmen.models.end_of_sequence import with_end
from malmen.models.language_model import Example, LanguageModel
from malmen.models.scratch import new_model
from malmen.models.tasks import TASKS

LOCFT = FineTuningSettings(
    epochs=25,
    learning_rate=1e-2,
    weight_decay=0.0,
    batch_size=100,
    loss="sequences",
    stop_loss=0.01,
    skip_loss=0.01,
    end_of_sequence=True,
)
PLAIN = FineTuningSettings(epochs=3, learning_rate=5e-3)


def tuned(model: LanguageModel, edits: list[Example], settings: FineTuningSettings) -> Shifts:
    return FineTuningEditor(ffn_layers(model), settings, seed=0).shifts(model, edits)


def assert_same(first: Shifts, second: Shifts, same: bool = True) -> None:
    assert all(torch.equal(first[name], second[name]) == same for name in first)


def losses_of(model: LanguageModel, edits: list[Example]) -> list[Tensor]:
    """Return the loss of each answer row by edit, one sequence at a time."""
    batches = [model.collate([edit], [0]) for edit in edits]
    return [model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets) for batch in batches]


def test_a_loss_by_sequences_is_the_mean_of_their_means(model: LanguageModel) -> None:
    edits = encoded_group(model, 7).edit
    (layer, *_) = ffn_layers(model)
    weight = layer.weight.requires_grad_(True)
    each = losses_of(model, edits)
    for loss, expected in (
        ("sequences", torch.stack([losses.mean() for losses in each]).mean()),
        ("tokens", torch.cat(each).mean()),
    ):
        found = model.loss(model.collate(weighted(edits, loss), range(7)))  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
        ours, theirs = (torch.autograd.grad(one, weight, retain_graph=True)[0] for one in (found, expected))
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    weight.requires_grad_(False)


def test_a_step_takes_as_many_edits_as_the_settings_say(gpt2: LanguageModel) -> None:
    edits = encoded_group(gpt2, 40).edit
    for size, sizes in ((32, [32, 8]), (100, [40]), (15, [15, 15, 10])):
        editor = FineTuningEditor([], replace(PLAIN, epochs=2, batch_size=size), seed=0)
        minibatches = list(editor.minibatches(edits))
        assert [len(part) for part in minibatches] == 2 * sizes
        for part in minibatches:
            assert sum(edit.weight * len(edit.targets) for edit in part) == pytest.approx(1)


def test_without_weight_decay_it_is_adam(gpt2: LanguageModel) -> None:
    edits = encoded_group(gpt2, 20).edit
    layers = ffn_layers(gpt2)
    shifts = tuned(gpt2, edits, replace(PLAIN, weight_decay=0.0))
    start = [layer.weight.detach().clone() for layer in layers]
    optimiser = torch.optim.Adam([layer.weight.requires_grad_(True) for layer in layers], lr=PLAIN.learning_rate)
    for _ in range(PLAIN.epochs):
        optimiser.zero_grad()
        torch.cat(losses_of(gpt2, edits)).mean().backward()
        optimiser.step()
    for layer, before in zip(layers, start, strict=True):
        torch.testing.assert_close(layer.orient(shifts[layer.name]), layer.weight - before, atol=1e-9, rtol=1e-7)


def test_tuning_ends_after_the_first_epoch_whose_mean_loss_is_small(gpt2: LanguageModel) -> None:
    edits = encoded_group(gpt2, 40).edit  # minibatches of 32 and 8
    first, second = (tuned(gpt2, edits, replace(PLAIN, epochs=epochs)) for epochs in (1, 2))
    assert_same(tuned(gpt2, edits, replace(PLAIN, stop_loss=math.inf)), first)
    means = []

    class Noted(Losses):
        @property
        def mean(self) -> float:
            means.append(super().mean)
            return means[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("malmen.editing.finetuning.Losses", Noted)
        tuned(gpt2, edits, PLAIN)
    assert means == sorted(means, reverse=True) and len(means) == 3
    assert_same(tuned(gpt2, edits, replace(PLAIN, stop_loss=(means[0] + means[1]) / 2)), second)


def test_the_mean_of_an_epoch_counts_each_edit_once() -> None:
    losses = Losses()
    assert losses.add(2.0, 3) == 2.0
    losses.add(6.0, 1)
    assert losses.mean == 3.0 and losses.largest == 6.0


def test_a_step_is_left_out_where_the_loss_is_small(gpt2: LanguageModel) -> None:
    edits = encoded_group(gpt2, 40).edit
    whole = tuned(gpt2, edits, PLAIN)
    assert_same(tuned(gpt2, edits, replace(PLAIN, skip_loss=1e-9)), whole)
    nothing = tuned(gpt2, edits, replace(PLAIN, skip_loss=1e9))
    assert all(not shift.any() for shift in nothing.values())  # nor is this an error
    # One minibatch: from the step on after which its loss is small, nothing happens.
    once = replace(PLAIN, batch_size=40, epochs=1)
    layers = ffn_layers(gpt2)
    with PostEditWeights(layers, tuned(gpt2, edits, once)).applied(), torch.no_grad():
        after = torch.cat(losses_of(gpt2, edits)).mean().item()
    skipping = tuned(gpt2, edits, replace(once, epochs=3, skip_loss=after * (1 + 1e-9)))
    assert_same(skipping, tuned(gpt2, edits, once))
    assert_same(skipping, tuned(gpt2, edits, replace(once, epochs=3)), same=False)


def test_a_loss_that_is_not_finite_is_never_small() -> None:
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(DivergedError, match="step 1"):
        tuned(model, encoded_group(model, 4).edit, replace(LOCFT, end_of_sequence=False))


def wide_gpt2() -> LanguageModel:
    """Return a GPT-2 whose feed-forward networks are wide enough to learn some facts: 256 numbers."""
    tokenizer = tiny_tokenizer("gpt2")
    model = LanguageModel(
        new_model(replace(SHAPES["gpt2"], hidden_size=64), tokenizer), tokenizer, TASKS["question_answering"]
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def test_answers_and_their_ends_are_learned_within_25_epochs() -> None:
    model = wide_gpt2()
    edits, layers = encoded_group(model, 12).edit, ffn_layers(model, last=1)
    # One step an epoch, as with 100 edits at a time, would be too few.
    settings = replace(LOCFT, learning_rate=0.07, batch_size=2)
    shifts = FineTuningEditor(layers, settings, seed=0).shifts(model, edits)
    ended = with_end(model, edits)
    with torch.no_grad():
        before = [losses.mean().item() for losses in losses_of(model, ended)]
        with PostEditWeights(layers, shifts).applied():
            rows = losses_of(model, ended)
    assert min(before) > 1
    assert torch.stack([losses.mean() for losses in rows]).mean() < 0.01
    assert max(losses[-1] for losses in rows) < 0.05  # the end itself
