"""UltraEdit and StableEdit: against MALMEN before its training, and against their definitions, in float64."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tiny_models import architecture_of, edit_tuples, ffn_layers, tiny_editor, tiny_model
from torch import Tensor

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.config.ultraedit import UltraEditSettings
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.editor import Remembering
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.rows import whole
from malmen.editing.running_covariance import RunningCovariance
from malmen.editing.training import encode_edits, update_normalisers
from malmen.editing.ultraedit import UltraEditEditor
from malmen.errors import DivergedError
from malmen.models.language_model import Example, LanguageModel, with_loss_weights

ETA = 1e-3


def edits_of(model: LanguageModel, start: int, stop: int) -> list[Example]:
    return encode_edits(model, edit_tuples(architecture_of(model), stop)[start:])


def editor(model: LanguageModel, **settings: Any) -> UltraEditEditor:
    keys = {} if "step_length" in settings else {"learning_rate": ETA}
    return UltraEditEditor(both_kinds(model), UltraEditSettings(**{**keys, **settings}))


def both_kinds(model: LanguageModel) -> list[EditedLayer]:
    """Return four layers of two shapes."""
    return [*ffn_layers(model, "first"), *ffn_layers(model, "second")]


def rows_of(model: LanguageModel, edits: Sequence[Example]) -> dict[str, tuple[Tensor, Tensor]]:
    settings = UltraEditSettings(learning_rate=ETA)
    captured = capture(model, both_kinds(model), with_loss_weights(edits), settings)
    return {name: (whole(rows.keys), whole(rows.gradients)) for name, rows in captured.items()}


def assert_close(ours: Mapping[str, Tensor], others: Mapping[str, Tensor], rtol: float = 1e-9) -> None:
    assert set(ours) == set(others)
    for name, shift in ours.items():
        assert shift.abs().max() > 0
        torch.testing.assert_close(shift, others[name], rtol=rtol, atol=rtol * float(others[name].abs().max()))


def test_with_the_inner_product_it_is_malmen_before_training(model: LanguageModel) -> None:
    edits = edits_of(model, 0, 6)
    malmen = tiny_editor(model, HyperNetworkSettings(rank=4, learning_rate=ETA))
    captured = capture(model, malmen.layers, malmen.weighted(edits), malmen.settings)
    update_normalisers(malmen, captured)
    ours = UltraEditEditor(malmen.layers, UltraEditSettings(learning_rate=ETA, factor="product"))
    assert_close(ours.shifts(model, edits), malmen.shifts(model, edits), 1e-6)


def test_it_is_its_definition(gpt2: LanguageModel) -> None:
    edits, ultra = edits_of(gpt2, 0, 6), editor(gpt2, regularisation=0.5)
    captured, shifts = rows_of(gpt2, edits), ultra.shifts(gpt2, edits)
    for kind in ("first", "second"):
        layers = [layer.name for layer in ffn_layers(gpt2, kind)]
        both = torch.cat([torch.cat(captured[name], dim=1) for name in layers])  # of the layers of one shape together
        for name in layers:
            keys, gradients = captured[name]
            standard = (torch.cat((keys, gradients), 1) - both.mean(0)) / (both.std(0, correction=0) + 1e-7)
            u, g = standard.split([keys.shape[1], gradients.shape[1]], dim=1)
            wanted = -ETA * (u**2).sum(1, keepdim=True) * g
            eye = torch.eye(keys.shape[1], dtype=torch.float64)
            expected = torch.linalg.solve(keys.T @ keys + 0.5 * eye, keys.T @ wanted)
            torch.testing.assert_close(shifts[name], expected)


def test_both_forms_of_the_equation_give_the_same_shift(gpt2: LanguageModel) -> None:
    edits, ultra = edits_of(gpt2, 0, 6), editor(gpt2)
    captured = capture(gpt2, ultra.layers, with_loss_weights(edits), ultra.settings)
    known = ultra.with_rows(captured)
    for layer in ultra.layers:
        standardise = known.of(layer).standardiser(whitened=False, floor=1.0)
        one, other = (ultra.solve(layer, captured[layer.name], standardise, dual) for dual in (False, True))
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_the_length_of_a_step_is_that_of_average_rows(gpt2: LanguageModel) -> None:
    given = UltraEditSettings(step_length=0.5)
    assert given.eta(16, 64) == 0.5 / (16 * 8)
    # Published sizes with eta = 1e-6: Llama-3 8B, Mistral 7B, GPT-J.
    for size, length in (((4096, 14336), 0.49), ((14336, 4096), 0.92), ((16384, 4096), 1.05)):
        assert UltraEditSettings(step_length=length).eta(*size) == pytest.approx(1e-6, rel=0.01)
    edits, sized = edits_of(gpt2, 0, 4), editor(gpt2, step_length=0.3)
    plain = editor(gpt2, learning_rate=1.0).shifts(gpt2, edits)
    scaled = {layer.name: given.eta(*layer.shape) * 0.6 * plain[layer.name] for layer in sized.layers}
    assert_close(sized.shifts(gpt2, edits), scaled)
    # On average over rows, ||u^||^2 is d_in and ||g^||^2 is d_out.
    layer = sized.layers[0]
    captured = capture(gpt2, sized.layers, with_loss_weights(edits), sized.settings)
    standardise = sized.with_rows(captured).of(layer).standardiser(whitened=False, floor=1.0)
    u, g = zip(
        *(standardise(*map(whole, (rows.keys, rows.gradients))) for rows in of_shape(captured, layer)), strict=True
    )
    assert float((torch.cat(u) ** 2).sum(1).mean()) == pytest.approx(layer.shape[0], rel=1e-3)
    assert math.sqrt(float((torch.cat(g) ** 2).sum(1).mean())) == pytest.approx(math.sqrt(layer.shape[1]), rel=1e-3)


def of_shape(captured: Mapping[str, KeysAndGradients], layer: EditedLayer) -> list[KeysAndGradients]:
    shapes = [(rows.keys.shape[1], rows.gradients.shape[1]) for rows in captured.values()]
    return [rows for rows, shape in zip(captured.values(), shapes, strict=True) if shape == layer.shape]


@pytest.mark.parametrize("sizes", [[60], [1, 59], [30, 30], [1] * 60])
def test_whitened_gradients_have_the_identity_as_covariance(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    rows = 3 + torch.randn(60, 5, generator=generator, dtype=torch.float64) @ mixing
    running = RunningCovariance(5)
    for part in rows.split(sizes):
        running.update(part)
    assert running.known
    white = (rows - running.mean) @ running.whitener(1e-12)
    identity = white.T @ white / (60 - 5 - 1)
    torch.testing.assert_close(identity, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-10)
    assert white.mean(0).abs().max() < 1e-12


def test_small_eigenvalues_are_raised_to_the_floor() -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 2] = 0  # a number that never varies
    running = RunningCovariance(3)
    running.update(rows)
    assert torch.linalg.eigvalsh(running.whitener(0.01)).max() == pytest.approx(10)


def test_a_covariance_is_known_from_more_rows_than_its_size_and_one() -> None:
    running = RunningCovariance(3)
    running.update(torch.randn(4, 3))
    assert not running.known
    running.update(torch.randn(1, 3))
    assert running.known


def test_whitening_begins_after_the_warm_up_and_where_the_covariance_is_known(gpt2: LanguageModel) -> None:
    many, few = edits_of(gpt2, 0, 16), edits_of(gpt2, 0, 3)
    diagonal = editor(gpt2).shifts(gpt2, many)
    white = editor(gpt2, whitening=True, covariance_floor=1e-20)
    shifts = white.shifts(gpt2, many)
    for layer in white.layers:
        rows = int(white.with_rows(capture(gpt2, white.layers, many, white.settings)).of(layer).normaliser.count)
        unlike = not torch.allclose(shifts[layer.name], diagonal[layer.name], rtol=1e-3)
        assert unlike == (rows > layer.shape[1] + 1), (layer.name, rows)
    assert any(not torch.allclose(shifts[name], diagonal[name], rtol=1e-3) for name in shifts)
    assert_close(white.shifts(gpt2, few), editor(gpt2).shifts(gpt2, few))
    warm = editor(gpt2, whitening=True, covariance_floor=1e-20, warm_up=1)
    assert_close(warm.shifts(gpt2, many), diagonal)
    warm.end_round(gpt2, many)
    plain = editor(gpt2)
    plain.shifts(gpt2, many)
    plain.end_round(gpt2, many)
    second = warm.shifts(gpt2, many), plain.shifts(gpt2, many)
    assert any(not torch.allclose(second[0][name], second[1][name], rtol=1e-3) for name in second[0])


def test_two_rounds_know_what_all_their_rows_at_once_tell(gpt2: LanguageModel) -> None:
    rounds, split = (edits_of(gpt2, 0, 7), edits_of(gpt2, 7, 16)), editor(gpt2, whitening=True)
    rows = [rows_of(gpt2, edits) for edits in rounds]
    for edits in rounds:
        split.shifts(gpt2, edits)
        split.end_round(gpt2, edits)
    joined = {
        name: KeysAndGradients(*map(torch.cat, zip(*(one[name] for one in rows), strict=True))) for name in rows[0]
    }
    at_once = editor(gpt2, whitening=True)
    at_once.remembered = at_once.with_rows(joined)
    ours, others = split.memory(), at_once.memory()
    assert ours.pop("rounds") == 2 and others.pop("rounds") == 1
    assert len(ours) == 12  # count, mean, and variance or scatter, of two shapes
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-9, atol=1e-9 * float(others[name].abs().max()))


def test_its_memory_comes_back_bit_for_bit(gpt2: LanguageModel) -> None:
    first, second = edits_of(gpt2, 0, 8), edits_of(gpt2, 8, 16)
    straight = editor(gpt2, whitening=True)
    assert isinstance(straight, Remembering)
    start = straight.memory()
    assert all(not tensor.any() for tensor in start.values())
    straight.shifts(gpt2, first)
    straight.end_round(gpt2, first)
    kept = straight.memory()
    expected = straight.shifts(gpt2, second)
    resumed = editor(gpt2, whitening=True)
    resumed.restore(kept)
    again = resumed.memory()
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())
    assert all(torch.equal(shift, expected[name]) for name, shift in resumed.shifts(gpt2, second).items())
    resumed.restore(start)  # as if nothing had been edited
    fresh = editor(gpt2, whitening=True).shifts(gpt2, second)
    assert all(torch.equal(shift, fresh[name]) for name, shift in resumed.shifts(gpt2, second).items())
    with pytest.raises(RuntimeError):
        editor(gpt2).restore(kept)


def test_shifts_alone_are_not_remembered(gpt2: LanguageModel) -> None:
    first, second, ultra = edits_of(gpt2, 0, 8), edits_of(gpt2, 8, 16), editor(gpt2)
    ultra.shifts(gpt2, first)
    assert_close(ultra.shifts(gpt2, second), editor(gpt2).shifts(gpt2, second), 1e-15)
    with pytest.raises(ValueError, match="shifts"):
        editor(gpt2).end_round(gpt2, first)


def test_a_later_round_is_standardised_by_all_rows_so_far(gpt2: LanguageModel) -> None:
    first, second, ultra = edits_of(gpt2, 0, 8), edits_of(gpt2, 8, 16), editor(gpt2)
    shifts = ultra.shifts(gpt2, first)
    with PostEditWeights(ultra.layers, shifts).applied():
        ultra.end_round(gpt2, first)
        later = ultra.shifts(gpt2, second)
        fresh = editor(gpt2).shifts(gpt2, second)
    assert any(not torch.allclose(later[name], fresh[name], rtol=1e-3) for name in later)
    assert all(float(ultra.remembered.of(layer).normaliser.count) > 0 for layer in ultra.layers)


@pytest.mark.parametrize("whitening", [False, True])
def test_a_single_row_gives_a_finite_shift(bert: LanguageModel, whitening: bool) -> None:
    ultra = UltraEditEditor(ffn_layers(bert, last=1), UltraEditSettings(learning_rate=ETA, whitening=whitening))
    for i in range(3):
        (edit,) = edits_of(bert, i, i + 1)
        shifts = ultra.shifts(bert, [edit])
        assert all(shift.isfinite().all() for shift in shifts.values())
        assert any(shift.any() for shift in shifts.values()) == (i > 0)
        ultra.end_round(bert, [edit])


def test_a_step_that_is_too_long_diverges(gpt2: LanguageModel) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        editor(gpt2, learning_rate=1e308).shifts(gpt2, edits_of(gpt2, 0, 8))


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"rows_bytes": 0}, {"rows_bytes": 0, "whitening": True}])
def test_batches_and_files_change_rounding_only(gpt2: LanguageModel, settings: dict[str, Any]) -> None:
    edits = edits_of(gpt2, 0, 16)
    plain = editor(gpt2, whitening=settings.get("whitening", False))
    assert_close(editor(gpt2, **settings).shifts(gpt2, edits), plain.shifts(gpt2, edits))


def test_a_model_in_bfloat16_gets_shifts_in_float32() -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    for whitening in (False, True):
        shifts = editor(model, whitening=whitening).shifts(model, edits_of(model, 0, 16))
        assert all(shift.dtype == torch.float32 and shift.isfinite().all() for shift in shifts.values())
