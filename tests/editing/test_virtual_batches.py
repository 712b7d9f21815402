"""Virtual batches of 32: in the order in which tuples were drawn, or sorted by length, as the public code does."""

from dataclasses import replace

import pytest
from test_meta_gradient import MALMEN, assert_same, trained_editor
from tiny_models import encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture, VirtualBatches
from malmen.config.hypernetwork import TrainingSettings
from malmen.data.tuples import Triple
from malmen.editing.base_outputs import LiveBaseOutputs
from malmen.editing.evaluation import edit
from malmen.editing.training import EncodedGroup, MetaTrainer
from malmen.models.language_model import Example, with_loss_weights


def example(length: int, answers: int) -> Example:
    return Example(tuple(range(length)), tuple(range(answers)), (0,) * answers)


def test_sorted_virtual_batches_hold_the_longest_examples_first() -> None:
    examples = [example(length, answers=1 + length % 3) for length in (3, 9, 5, 9, 4, *range(10, 40))]
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens))
    expected = [0.0] * len(examples)
    for virtual in (order[:32], order[32:]):
        for i in virtual:
            expected[i] = 1 / sum(len(examples[j].targets) for j in virtual)
    found = with_loss_weights(examples, "sorted")
    assert [one.weight for one in found] == expected
    assert [one.tokens for one in found] == [one.tokens for one in examples]
    assert found != with_loss_weights(examples)


def longest_first(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda one: -len(one.tokens))


@pytest.mark.parametrize("architecture", ["gpt2", "bart"])
def test_an_editor_with_sorted_virtual_batches_is_one_whose_groups_are_sorted(architecture: Architecture) -> None:
    """Each kind of tuple is sorted and then divided, as in the public code's loader."""
    model = tiny_model(architecture)
    group: EncodedGroup = encoded_group(model, 40)
    by_length = Triple(*map(longest_first, group))
    results: dict[str, dict[str, Tensor | None]] = {}
    cases: dict[str, tuple[VirtualBatches, EncodedGroup]] = {
        "drawn": ("drawn", group),
        "plain": ("drawn", by_length),
        "sorted": ("sorted", group),
    }
    for name, (order, given) in cases.items():
        editor = trained_editor(model, MALMEN, ffn_layers(model))
        editor.settings = replace(MALMEN, virtual_batches=order)
        shifts, _ = edit(model, editor, given.edit, LiveBaseOutputs(model))
        MetaTrainer(model, editor, TrainingSettings()).step(given)
        results[name] = {f"shift of {layer}": shift for layer, shift in shifts.items()}
        results[name] |= {key: parameter.grad for key, parameter in editor.networks.named_parameters()}
    assert_same(results["sorted"], results["plain"], 1e-9)
    with pytest.raises(AssertionError):
        assert_same(results["sorted"], results["drawn"], 1e-3)
