"""Editing in rounds: one round is editing at once, more are what a model gives that really changes, without drift."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from tiny_models import ARCHITECTURES, encoded_group, ffn_layers, tiny_editor, tiny_model
from torch import Tensor

from malmen.config.base import Architecture
from malmen.config.finetuning import FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.capture import capture
from malmen.editing.editor import Editor, Remembering
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.hypernetwork_in_rounds import HyperNetworkInRounds, RetrainedInRounds
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rounds import TOTAL, EditedInRounds
from malmen.editing.training import update_normalisers
from malmen.errors import DivergedError
from malmen.models.language_model import Example, LanguageModel

SETTINGS = HyperNetworkSettings(rank=4, learning_rate=0.3)


def editor_of(model: LanguageModel, settings: HyperNetworkSettings = SETTINGS) -> HyperNetworkEditor:
    """Return an editor that has seen some rows, and whose blocks do something."""
    editor = tiny_editor(model, settings)
    with torch.no_grad():
        for parameter in editor.networks.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    update_normalisers(editor, capture(model, editor.layers, encoded_group(model, 12).edit, settings))
    return editor


def groups(model: LanguageModel) -> list[list[Example]]:
    edits = encoded_group(model, 12).edit
    return [edits[:4], edits[4:8], edits[8:]]


def weights_after(model: LanguageModel, editor: Editor, rounds: Sequence[Sequence[Example]]) -> dict[str, Tensor]:
    edited = EditedInRounds(model, editor)
    for edits in rounds:
        edited.edit(edits)
    with edited.applied():
        return {layer.name: layer.weight.detach().clone() for layer in editor.layers}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_round_is_editing_at_once_bit_for_bit(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    for editor in (editor_of(model), FineTuningEditor(ffn_layers(model), FineTuningSettings(), 0)):
        edits = groups(model)[0]
        original = {layer.name: layer.weight.clone() for layer in editor.layers}
        shifts = editor.shifts(model, edits)
        with PostEditWeights(editor.layers, shifts).applied():
            expected = {layer.name: layer.weight.clone() for layer in editor.layers}
        after = weights_after(model, editor, [edits])
        assert all(torch.equal(after[name], expected[name]) for name in expected)
        assert all(torch.equal(layer.weight, original[layer.name]) for layer in editor.layers)


def test_shifts_may_come_from_another_device_than_that_of_restored_totals() -> None:
    model = tiny_model("gpt2")
    edited = EditedInRounds(model, editor_of(model))
    names = [layer.name for layer in edited.editor.layers]
    edited.restore({f"{TOTAL}{name}": torch.ones(2, 3) for name in names}, 1)
    added = edited.added({name: torch.ones(2, 3, device="meta") for name in names})
    assert {total.device.type for total in added.values()} == {"meta"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_round_edits_what_the_rounds_before_left(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    editor = editor_of(model)
    after = weights_after(model, editor, groups(model))
    copy = deepcopy(model)  # a model that is really changed, round by round
    layers = ffn_layers(copy)
    by_hand = HyperNetworkEditor(
        layers, SETTINGS, editor.networks, HyperNetworkEditor.create(layers, SETTINGS, 0).slots
    )
    for edits in groups(copy):
        for layer, shift in zip(layers, by_hand.shifts(copy, edits).values(), strict=True):
            layer.weight.data += layer.orient(shift)
    for layer in layers:
        torch.testing.assert_close(after[layer.name], layer.weight.detach(), rtol=1e-10, atol=1e-12)
    assert all(not parameter.requires_grad for parameter in model.module.parameters())


@dataclass
class Constant:
    """Shifts every weight by the same number, too small for bfloat16 to see beside a weight."""

    layers: Sequence[EditedLayer]
    by: float

    def shifts(self, _model: LanguageModel, _edits: Sequence[Example]) -> dict[str, Tensor]:
        return {layer.name: torch.full(layer.shape, self.by) for layer in self.layers}


def test_many_small_rounds_do_not_drift_in_bfloat16() -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    layers = ffn_layers(model)
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1.0)
    edits = groups(model)[0]
    after = weights_after(model, Constant(layers, 2.0**-12), [edits] * 256)
    assert all((weight == 1.0625).all() for weight in after.values())  # in place, each round would be rounded away


def test_a_round_that_is_not_finite_leaves_those_before() -> None:
    model = tiny_model("gpt2", torch.float32)
    editor = Constant(ffn_layers(model), 2e38)
    edited = EditedInRounds(model, editor)
    edited.edit(groups(model)[0])
    before = {name: total.clone() for name, total in edited.totals.items()}
    with pytest.raises(DivergedError, match="sum of the shifts"):
        edited.edit(groups(model)[1])
    assert edited.n_made == 1 and all(torch.equal(edited.totals[name], before[name]) for name in before)


def test_running_normalisers_take_each_round_in_before_its_shifts() -> None:
    model = tiny_model("gpt2")
    first, second, _ = groups(model)
    frozen = editor_of(model)
    statistics = {name: tensor.clone() for name, tensor in frozen.networks.state_dict().items()}
    weights_after(model, frozen, [first, second])
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in frozen.networks.state_dict().items())
    by_hand = editor_of(model)
    captured = capture(model, by_hand.layers, by_hand.weighted(first), SETTINGS)
    update_normalisers(by_hand, captured)
    expected = by_hand.aggregate(captured)
    running = HyperNetworkInRounds(editor_of(model), running=True, remembers_keys=False)
    shifts = running.shifts(model, first)
    assert all(torch.equal(shifts[name], expected[name]) for name in expected)


@pytest.mark.parametrize("settings", [SETTINGS, HyperNetworkSettings(rank=4, learning_rate=0.3, tokens="all")])
def test_remembered_keys_join_the_normal_equation(settings: HyperNetworkSettings) -> None:
    model = tiny_model("gpt2")
    first, second, _ = groups(model)
    plain, editor = editor_of(model, settings), editor_of(model, settings)
    remembering = HyperNetworkInRounds(editor, running=False, remembers_keys=True)
    edited = EditedInRounds(model, remembering)
    keys_of_first = capture(model, plain.layers, plain.weighted(first), settings)
    edited.edit(first)
    for name, shift in plain.aggregate(keys_of_first).items():  # with nothing remembered it is MALMEN
        torch.testing.assert_close(edited.totals[name], shift, rtol=1e-9, atol=1e-11)
    before = dict(edited.totals)
    with edited.applied():
        rows = capture(model, plain.layers, plain.weighted(second), settings)
    edited.edit(second)
    for slot in plain.slots:
        name = slot.layer.name
        old, k = keys_of_first[name].keys[:], rows[name].keys[:]  # (n_1, d_in), (n_2, d_in)
        d = plain.network(slot).value_differences(k, rows[name].gradients[:], slot.index)  # (n_2, d_out)
        both = torch.cat([old, k])  # the least squares of both groups in which the first asks for no change
        wanted = torch.cat([torch.zeros(len(old), d.shape[1], dtype=d.dtype), d])
        ridge = plain.network(slot).regularisation(slot.index) * torch.eye(both.shape[1], dtype=d.dtype)
        expected = torch.linalg.solve(both.T @ both + ridge, both.T @ wanted)  # (d_in, d_out)
        torch.testing.assert_close(edited.totals[name] - before[name], expected.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("running", "remembers"), [(True, False), (False, True), (True, True)])
def test_an_interrupted_run_goes_on_with_the_same_bytes(running: bool, remembers: bool) -> None:
    model = tiny_model("gpt2")
    rounds = groups(model)

    def new() -> Remembering:
        return HyperNetworkInRounds(editor_of(model), running, remembers)

    whole = EditedInRounds(model, new())
    for edits in rounds:
        whole.edit(edits)
    part = EditedInRounds(model, new())
    part.edit(rounds[0])
    state = part.tensors()
    resumed = EditedInRounds(model, new())
    resumed.restore(state, 1)
    for edits in rounds[1:]:
        resumed.edit(edits)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_an_editor_is_trained_anew_on_the_model_as_it_is() -> None:
    model = tiny_model("gpt2")
    seen: list[Tensor] = []

    def train() -> HyperNetworkEditor:
        seen.append(ffn_layers(model)[0].weight.clone())
        return editor_of(model)

    editor = RetrainedInRounds(editor_of(model), train, every=2)
    edited = EditedInRounds(model, editor)
    for edits in [*groups(model), *groups(model)]:
        edited.edit(edits)
        if edited.n_made == 2:
            with edited.applied():
                after_two = editor.layers[0].weight.clone()
    assert len(seen) == 2 and torch.equal(seen[0], after_two) and not torch.equal(seen[1], seen[0])
    other = RetrainedInRounds(editor_of(model), train, every=2)
    other.restore(editor.memory())
    assert other.n_made == 6
    networks = other.trained.networks.state_dict()
    assert all(torch.equal(tensor, networks[name]) for name, tensor in editor.trained.networks.state_dict().items())
