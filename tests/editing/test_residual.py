"""The mean residual of Figure 8 against its formula, row by row."""

from dataclasses import replace

import pytest
import torch
from tiny_models import architecture_of, edit_tuples, encoded_group, ffn_layers, tiny_editor

from malmen.config.finetuning import FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.capture import capture
from malmen.editing.evaluation import Evaluation
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.models.language_model import LanguageModel

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16)
MEND = replace(MALMEN, aggregation="sum")


def new_editor(model: LanguageModel, settings: HyperNetworkSettings) -> HyperNetworkEditor:
    """Return an editor in float64 whose networks are far from the identity."""
    editor = tiny_editor(model, settings)
    generator = torch.Generator().manual_seed(1)
    for parameter in editor.networks.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return editor


@pytest.mark.parametrize("settings", [MALMEN, MEND], ids=["malmen", "mend"])
def test_residuals_are_those_of_the_formula(model: LanguageModel, settings: HyperNetworkSettings) -> None:
    editor = new_editor(model, replace(settings, rows_per_batch=7))
    captured = capture(model, editor.layers, encoded_group(model, 20).edit, editor.settings)
    shifts = editor.aggregate(captured)
    expected = []
    for slot in editor.slots:
        rows, network = captured[slot.layer.name], editor.network(slot)
        for u, gradient in zip(whole(rows.keys), whole(rows.gradients), strict=True):
            pseudo_key, pseudo_gradient = (row[0] for row in network(u[None], gradient[None], slot.index))
            single = -network.eta[slot.index] * torch.outer(pseudo_gradient, pseudo_key)  # S_j, (d_out, d_in)
            d = single @ u
            expected.append((torch.norm(shifts[slot.layer.name].T @ u - d) / torch.norm(d)).item())
    assert editor.residuals(captured, shifts).tolist() == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) > 10


def test_a_row_of_which_nothing_is_asked_is_left_out(gpt2: LanguageModel) -> None:
    editor = new_editor(gpt2, MALMEN)
    captured = capture(gpt2, editor.layers, encoded_group(gpt2, 8).edit, editor.settings)
    rows = len(captured[editor.layers[0].name].keys)
    editor.network(editor.slots[0]).eta.data[0] = 0
    assert editor.residuals(captured, editor.aggregate(captured)).shape == (rows,)


def test_a_single_row_is_met_by_least_squares_and_by_a_sum(gpt2: LanguageModel) -> None:
    edits = encoded_group(gpt2, 1).edit
    for settings in (MALMEN, MEND):
        editor = new_editor(gpt2, settings)
        # So little that least squares meets any one row.
        editor.network(editor.slots[0]).log_regularisation.data.fill_(-18)
        captured = {
            name: replace(rows, keys=rows.keys[:1], gradients=rows.gradients[:1])
            for name, rows in capture(gpt2, editor.layers, edits, editor.settings).items()
        }
        assert editor.residuals(captured, editor.aggregate(captured)).max() < 1e-6


def test_evaluation_records_the_mean_for_hyper_networks_alone(model: LanguageModel) -> None:
    evaluation = Evaluation(model, edit_tuples(architecture_of(model), 8), 8, seed=0)
    editor = new_editor(model, MEND)
    captured = capture(model, editor.layers, evaluation.all.edit, editor.settings)
    residuals = editor.residuals(captured, editor.aggregate(captured))
    assert evaluation.run(editor, slice(0, 8)).metrics["residual"] == pytest.approx(residuals.mean().item(), rel=1e-9)
    tuned = FineTuningEditor(ffn_layers(model), FineTuningSettings(epochs=1), 0)
    assert "residual" not in evaluation.run(tuned, slice(0, 8)).metrics
