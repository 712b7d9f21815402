"""Memory that runs out: the same results in smaller parts, or one sentence that names the part that does not fit."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from memory_errors import ALLOCATOR, CUDA
from reliability import record, record_restored
from tiny_models import architecture_of, edit_tuples, encoded_group, ffn_layers, tiny_editor
from torch import Tensor

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.capture import capture
from malmen.editing.evaluation import Evaluation
from malmen.editing.hypernetwork import HyperNetwork
from malmen.editing.training import meta_gradient
from malmen.errors import DoesNotFitError
from malmen.models.batching import whole_in_memory
from malmen.models.language_model import Batch, LanguageModel

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16, rows_per_batch=8, graph_bytes=0)


def halved() -> None:
    record(
        "memory running out",
        "the error of torch's allocator (CPU or GPU), in every pass above a size or in the middle of a backward pass",
        1,
        "the batch is halved until it fits; the same result",
    )


def named() -> None:
    record(
        "one item larger than memory",
        "the same error for a single sequence, cached row or normal equation; an allocation of 32 PiB",
        1,
        "one sentence says which part needs how much more",
    )


def test_a_real_allocation_that_fails_is_recognised() -> None:
    message = r"^The matrix does not fit into memory \(\d+ bytes more are needed\); use"
    with pytest.raises(DoesNotFitError, match=message), whole_in_memory("The matrix"):
        torch.empty(2**55, dtype=torch.uint8)
    named()


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, model: LanguageModel, sequences: int, rows: int) -> list[str]:
    """Let memory run out late in every pass of more sequences, or rows, than so many; return where it did, in order."""
    failures: list[str] = []
    forward, answer_logits = HyperNetwork.forward, model.answer_logits

    def logits(batch: Batch) -> Tensor:
        if len(batch.inputs["input_ids"]) > sequences:
            failures.append("sequences")
            raise RuntimeError(ALLOCATOR)
        return answer_logits(batch)

    def refined(self: HyperNetwork, keys: Tensor, gradients: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if len(keys) > rows:
            failures.append("rows")
            raise torch.OutOfMemoryError(CUDA)
        return forward(self, keys, gradients, layer)

    monkeypatch.setattr(model, "answer_logits", logits)
    monkeypatch.setattr(HyperNetwork, "forward", refined)
    return failures


@pytest.mark.parametrize("aggregation", ["least_squares", "sum"])
def test_memory_that_runs_out_changes_no_result(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, aggregation: str
) -> None:
    group = encoded_group(gpt2, 40)
    settings = replace(MALMEN, aggregation=aggregation)  # type: ignore[arg-type]
    expected, editor = tiny_editor(gpt2, settings), tiny_editor(gpt2, settings)
    losses = meta_gradient(gpt2, expected, capture(gpt2, expected.layers, group.edit, expected.settings), group, 0.7)
    gpt2.sizes.clear()
    failures = out_of_memory_above(monkeypatch, gpt2, sequences=5, rows=3)
    found = meta_gradient(gpt2, editor, capture(gpt2, editor.layers, group.edit, editor.settings), group, 0.7)
    assert found == pytest.approx(losses, rel=1e-10)
    for one, other in zip(expected.networks.parameters(), editor.networks.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            assert (one.grad - other.grad).norm() <= 1e-10 * one.grad.norm()
    # From 16 over 8 to 4 sequences for each of three purposes, from 8 over 4 to 2 rows once.
    assert (failures.count("sequences"), failures.count("rows")) == (6, 2)
    assert {size.items for size in gpt2.sizes.values()} == {4}
    halved()


def test_a_failure_in_the_middle_of_a_backward_pass_adds_nothing(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = encoded_group(gpt2, 40)
    expected, editor = tiny_editor(gpt2, MALMEN), tiny_editor(gpt2, MALMEN)
    meta_gradient(gpt2, expected, capture(gpt2, expected.layers, group.edit, expected.settings), group, 0.7)
    gpt2.sizes.clear()
    grad, calls = torch.autograd.grad, Counter[int]()

    def late(outputs: Any, *others: Any, **options: Any) -> Any:
        result = grad(outputs, *others, **options)
        calls[outputs.dim()] += 1
        if calls[outputs.dim()] == 2:  # of losses, and of rows
            raise RuntimeError(ALLOCATOR)
        return result

    monkeypatch.setattr(torch.autograd, "grad", late)
    meta_gradient(gpt2, editor, capture(gpt2, editor.layers, group.edit, editor.settings), group, 0.7)
    assert min(calls[0], calls[2]) > 2
    for one, other in zip(expected.networks.parameters(), editor.networks.parameters(), strict=True):
        if one.grad is not None and other.grad is not None:
            assert (one.grad - other.grad).norm() <= 1e-10 * one.grad.norm()
    halved()


def test_evaluation_goes_on_with_less_memory(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tuples = edit_tuples(architecture_of(model), 12)
    expected = Evaluation(model, tuples, 8, seed=0).before
    model.sizes.clear()
    failures = out_of_memory_above(monkeypatch, model, sequences=2, rows=1000)
    for one, other in zip(expected, Evaluation(model, tuples, 8, seed=0).before, strict=True):
        assert torch.equal(one.correct, other.correct)
    assert failures == 2 * ["sequences"]
    halved()


def test_a_sequence_that_does_not_fit_is_named(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(monkeypatch, gpt2, sequences=0, rows=0)
    with pytest.raises(
        DoesNotFitError,
        match=r"^A single sequence of up to \d+ tokens in the language model \(keys and value gradients\)",
    ):
        capture(gpt2, ffn_layers(gpt2), encoded_group(gpt2, 10).edit, HyperNetworkSettings())
    named()


def test_a_row_that_does_not_fit_is_named(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tiny_editor(gpt2, MALMEN)
    out_of_memory_above(monkeypatch, gpt2, sequences=1000, rows=0)
    with pytest.raises(
        DoesNotFitError, match=r"^One cached row of layer transformer\.h\.1\.mlp\.c_proj in the hyper-network"
    ):
        editor.shifts(gpt2, encoded_group(gpt2, 10).edit)
    named()


def test_a_normal_equation_that_does_not_fit_is_named(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(ALLOCATOR)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", full)
    with pytest.raises(
        DoesNotFitError, match=r"^The normal equation of layer transformer\.h\.1\.mlp\.c_proj does not fit"
    ):
        tiny_editor(gpt2, MALMEN).shifts(gpt2, encoded_group(gpt2, 10).edit)
    named()


def test_the_weights_come_back_when_memory_ends_while_they_are_edited(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ffn_layers(model)
    evaluation = Evaluation(model, edit_tuples(architecture_of(model), 4), 4, seed=0)
    before = [layer.weight.clone() for layer in layers]
    out_of_memory_above(monkeypatch, model, sequences=0, rows=0)
    with pytest.raises(DoesNotFitError, match=r"^A single sequence"):
        evaluation.after(layers, {layer.name: torch.ones(layer.shape) for layer in layers}, slice(0, 4))
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))
    record_restored()
