"""The separated meta-gradient against autograd through everything, and against finite differences."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_models import ARCHITECTURES, architecture_of, edit_tuples, encoded_group, ffn_layers, tiny_model
from torch import Tensor, nn

from malmen.config.base import Architecture, FfnLayer, Tokens
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.concatenated import meta_gradient_concatenated
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups, meta_gradient
from malmen.models.language_model import LanguageModel

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16)
MEND = replace(MALMEN, aggregation="sum")
COEFFICIENT = 0.7
MetaGradient = Callable[..., tuple[float, float]]


def trained_editor(
    model: LanguageModel, settings: HyperNetworkSettings, layers: list[EditedLayer]
) -> HyperNetworkEditor:
    """Return an editor in float64 that has left its initial values, B = 0 among them."""
    editor = HyperNetworkEditor.create(layers, settings, seed=0)
    editor.networks.double()
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2))
    for group in draw_groups(model, edit_tuples(architecture_of(model), 60), 40, 3, random.Random(1)):
        trainer.step(group)
    editor.networks.zero_grad(set_to_none=True)
    assert all(parameter.any() for parameter in editor.networks.parameters() if parameter.dim() > 1)
    return editor


def gradients_of(
    function: MetaGradient, model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup
) -> tuple[dict[str, Tensor | None], tuple[float, float]]:
    """Return the gradient of each parameter by name, and the two losses."""
    editor.networks.zero_grad(set_to_none=True)
    losses = function(model, editor, capture(model, editor.layers, group.edit, editor.settings), group, COEFFICIENT)
    return {name: parameter.grad for name, parameter in editor.networks.named_parameters()}, losses


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None], tolerance: float) -> None:
    for name, one in expected.items():
        other = found[name]
        if one is None or other is None:
            assert one is other is None, name
        else:
            assert one.norm() > 0, f"the gradient of {name} is zero, which tests nothing"
            assert (other - one).norm() <= tolerance * one.norm(), name


@pytest.mark.parametrize("layer", ["first", "second"])
@pytest.mark.parametrize("tokens", ["answer", "all"])
@pytest.mark.parametrize("settings", [MALMEN, MEND], ids=["malmen", "mend"])
def test_separated_equals_concatenated(
    model: LanguageModel, settings: HyperNetworkSettings, tokens: Tokens, layer: FfnLayer
) -> None:
    editor = trained_editor(model, replace(settings, tokens=tokens), ffn_layers(model, layer))
    group = encoded_group(model, 40)
    found, losses = gradients_of(meta_gradient, model, editor, group)
    expected, expected_losses = gradients_of(meta_gradient_concatenated, model, editor, group)
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert_same(found, expected, 1e-9)


@pytest.mark.parametrize(
    "architecture, tokens", [("bert", "all"), ("gpt2", "all"), ("gpt2", "answer"), ("gptj", "answer"), ("bart", "all")]
)
def test_separated_equals_concatenated_without_regularisation(architecture: Architecture, tokens: Tokens) -> None:
    model = tiny_model(architecture)
    settings = replace(MALMEN, regularised=False, tokens=tokens)
    editor = trained_editor(model, settings, ffn_layers(model, "first"))
    group = encoded_group(model, 40)
    found, losses = gradients_of(meta_gradient, model, editor, group)
    expected, expected_losses = gradients_of(meta_gradient_concatenated, model, editor, group)
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert all(gradient is None for name, gradient in found.items() if "log_regularisation" in name)
    assert_same(found, expected, 1e-9)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_few_edits_ask_for_no_gradient_to_the_shift(dtype: torch.dtype, tolerance: float) -> None:
    model = tiny_model("bert", dtype)
    precise = tiny_model("bert")
    editor = HyperNetworkEditor.create(ffn_layers(model), MALMEN, seed=0)
    editor.networks.to(dtype).load_state_dict(
        trained_editor(precise, MALMEN, ffn_layers(precise)).networks.state_dict()
    )
    group = encoded_group(model, 8)
    captured = capture(model, editor.layers, group.edit, editor.settings)
    assert all(solution.dual_keys is not None for solution in editor.solve(captured).values())
    assert all(solution.dual_keys is None for solution in editor.solve(captured_twice(captured)).values())
    found, _ = gradients_of(meta_gradient, model, editor, group)
    expected, _ = gradients_of(meta_gradient_concatenated, model, editor, group)
    assert_same(found, expected, tolerance)


def captured_twice(captured: dict[str, KeysAndGradients]) -> dict[str, KeysAndGradients]:
    return {
        name: KeysAndGradients(whole(rows.keys).repeat(2, 1), whole(rows.gradients).repeat(2, 1))
        for name, rows in captured.items()
    }


def test_both_ffn_layers_at_once_have_a_network_each(model: LanguageModel) -> None:
    layers = [*ffn_layers(model, "first"), *ffn_layers(model, "second")]
    editor = trained_editor(model, MALMEN, layers)
    assert sorted(editor.networks) == ["16x64", "64x16"]
    per_shape = len(layers) // 2
    assert [(slot.network, slot.index) for slot in editor.slots if slot.network == "16x64"] == [
        ("16x64", index) for index in range(per_shape)
    ]
    assert per_shape == (4 if model.two_stacks else 2)
    group = encoded_group(model, 40)
    found, _ = gradients_of(meta_gradient, model, editor, group)
    expected, _ = gradients_of(meta_gradient_concatenated, model, editor, group)
    assert_same(found, expected, 1e-9)


def meta_loss(model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup) -> float:
    """Return L_gen + lambda_loc L_loc for the shifts the editor makes now, in one forward pass of each kind."""
    (equivalent,) = model.batches(group.equivalent, 1000)
    (unrelated,) = model.batches(group.unrelated, 1000)
    before = model.answer_logits(unrelated)
    with PostEditWeights(editor.layers, editor.shifts(model, group.edit)).applied(), torch.no_grad():
        return (model.loss(equivalent) + COEFFICIENT * model.divergence(unrelated, before)).item()


@pytest.mark.parametrize("settings", [MALMEN, MEND], ids=["malmen", "mend"])
def test_the_meta_gradient_is_the_slope_of_the_meta_loss(model: LanguageModel, settings: HyperNetworkSettings) -> None:
    editor = trained_editor(model, settings, ffn_layers(model))
    group = encoded_group(model, 40)
    gradients, _ = gradients_of(meta_gradient, model, editor, group)
    parameters = dict(editor.networks.named_parameters())
    generator = torch.Generator().manual_seed(0)
    for name, gradient in gradients.items():
        if gradient is None:  # MEND has no regularisation.
            continue
        # So short that hardly any pre-activation crosses the kink of the blocks.
        step = 1e-8 * torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
        value = parameters[name].data
        parameters[name].data = value + step
        ahead = meta_loss(model, editor, group)
        parameters[name].data = value - step
        behind = meta_loss(model, editor, group)
        parameters[name].data = value
        assert (ahead - behind) / 2 == pytest.approx((gradient * step).sum().item(), rel=1e-5), name


@pytest.mark.parametrize("settings", [MALMEN, MEND], ids=["malmen", "mend"])
def test_micro_batches_change_nothing(model: LanguageModel, settings: HyperNetworkSettings) -> None:
    editor = trained_editor(model, replace(settings, tokens="all"), ffn_layers(model))
    group = encoded_group(model, 40)
    reference, losses = gradients_of(meta_gradient, model, editor, group)
    shifts = editor.shifts(model, group.edit)
    for batch_size, rows_per_batch in ((1, 4096), (3, 4096), (7, 4096), (64, 4096), (16, 1), (16, 5)):
        editor.settings = replace(editor.settings, batch_size=batch_size, rows_per_batch=rows_per_batch)
        found, found_losses = gradients_of(meta_gradient, model, editor, group)
        assert found_losses == pytest.approx(losses, rel=1e-10)
        assert_same(found, reference, 1e-10)
        for name, shift in editor.shifts(model, group.edit).items():
            assert (shift - shifts[name]).norm() <= 1e-10 * shift.norm(), name


@pytest.mark.parametrize("n_layers_kept", [0, 1, 2])
def test_kept_graphs_change_nothing(model: LanguageModel, n_layers_kept: int) -> None:
    editor = trained_editor(model, replace(MALMEN, rows_per_batch=7), ffn_layers(model))
    group = encoded_group(model, 40)
    captured = capture(model, editor.layers, group.edit, editor.settings)
    needed = [editor.network(slot).graph_bytes(len(captured[slot.layer.name].keys)) for slot in editor.slots]
    reference, losses = gradients_of(meta_gradient, model, editor, group)
    editor.settings = replace(editor.settings, graph_bytes=sum(needed[:n_layers_kept]))
    solved = editor.solve(captured, for_backward=True)
    kept = [s.differences is not None and s.differences.requires_grad for s in solved.values()]
    assert kept[:2] == [number < n_layers_kept for number in range(2)]
    found, found_losses = gradients_of(meta_gradient, model, editor, group)
    assert found_losses == pytest.approx(losses, rel=1e-10)
    assert_same(found, reference, 1e-10)


def test_a_graph_takes_about_what_is_said(gpt2: LanguageModel) -> None:
    editor = trained_editor(gpt2, MALMEN, ffn_layers(gpt2))
    network, (keys, gradients) = editor.network(editor.slots[0]), torch.ones(50, 80).double().split([64, 16], dim=1)
    saved: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.update({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()}) or tensor,
        lambda tensor: tensor,
    ):
        differences = network.value_differences(keys, gradients, 0)
    assert differences.requires_grad
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found = sum(size for pointer, size in saved.items() if pointer not in parameters)
    assert 0.6 * found <= network.graph_bytes(50) <= 1.7 * found


@pytest.mark.parametrize("function", [meta_gradient, meta_gradient_concatenated])
def test_the_model_is_left_as_it_was(model: LanguageModel, function: MetaGradient) -> None:
    editor = trained_editor(model, MALMEN, ffn_layers(model))
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    gradients_of(function, model, editor, encoded_group(model, 40))
    assert_untouched(model.module, before)


def assert_untouched(module: nn.Module, before: dict[str, Tensor]) -> None:
    after = module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())
    assert not module.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_in_bfloat16_is_edited_in_float32(architecture: Architecture) -> None:
    model = tiny_model(architecture, torch.bfloat16)
    editor = HyperNetworkEditor.create(ffn_layers(model), MALMEN, seed=0)
    group = encoded_group(model, 40)
    MetaTrainer(model, editor, TrainingSettings()).step(group)
    assert {shift.dtype for shift in editor.shifts(model, group.edit).values()} == {torch.float32}
    assert {parameter.dtype for parameter in editor.networks.parameters()} == {torch.float32}


def test_separated_equals_concatenated_roughly_in_bfloat16() -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    editor = HyperNetworkEditor.create(ffn_layers(model), MALMEN, seed=0)
    group = encoded_group(model, 40)
    MetaTrainer(model, editor, TrainingSettings()).step(group)
    found, _ = gradients_of(meta_gradient, model, editor, group)
    expected, _ = gradients_of(meta_gradient_concatenated, model, editor, group)
    assert_same(found, expected, 0.05)
