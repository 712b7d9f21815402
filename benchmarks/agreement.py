"""Compares the results of this package and the official code, for the same hyper-network and cached rows.

    python benchmarks/agreement.py --official ../malmen                  # a clone of github.com/ChenmienTan/malmen

It compares shifts and meta-gradients, also with the results of this package in float64. Results go to
``benchmarks/results``.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import COMPARED, edited_layers, full_size_model, random_group
from official import COMMIT, Official, official_batches

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, meta_gradient
from malmen.models.language_model import LanguageModel


def differences(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    official: Official,
    group: EncodedGroup,
    batches: dict[str, list[dict[str, Tensor]]],
) -> dict[str, float]:
    """Return the largest relative distances of our shifts and clipped meta-gradients from theirs.

    Both have the same hyper-network after one step (before it, the first layers have no gradient) and the same
    statistics of rows; the update of the statistics is excluded, because the official variance is not the population's.
    """
    official.step(batches)
    official.cache(batches)
    official.copy_into(editor)
    captured = capture(model, editor.layers, group.edit, editor.settings)
    shifts, theirs, exact = editor.aggregate(captured), official.shifts(), shifts_in_float64(editor, captured)
    gradients, precise = meta_gradients(model, editor, group), gradients_in_float64(model, editor, group)
    official.step_with_the_same_statistics(batches)
    official_gradients = official.gradients(editor)
    return {
        "shift": largest_distance(shifts, theirs),
        "our shift to that in float64": largest_distance(shifts, exact),
        "official shift to that in float64": largest_distance(theirs, exact),
        "meta-gradient": largest_distance(gradients, official_gradients),
        "our meta-gradient to that in float64": largest_distance(gradients, precise),
        "official meta-gradient to that in float64": largest_distance(official_gradients, precise),
    }


def meta_gradients(model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup) -> dict[str, Tensor]:
    """Return the clipped meta-gradient of a group by parameter."""
    editor.networks.zero_grad()
    meta_gradient(model, editor, capture(model, editor.layers, group.edit, editor.settings), group, 1.0)
    torch.nn.utils.clip_grad_norm_(editor.networks.parameters(), 1.0)
    named = editor.networks.named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def gradients_in_float64(model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup) -> dict[str, Tensor]:
    """Return the clipped meta-gradient for the same model and hyper-network, all computed in float64."""
    precise_model = copy.deepcopy(model)
    precise_model.module.double()
    layers = [EditedLayer(layer.name, precise_model.module.get_submodule(layer.name)) for layer in editor.layers]
    precise = HyperNetworkEditor.create(layers, editor.settings, seed=0)
    precise.networks.double().load_state_dict(editor.networks.state_dict())
    return meta_gradients(precise_model, precise, group)


def shifts_in_float64(editor: HyperNetworkEditor, captured: dict[str, KeysAndGradients]) -> dict[str, Tensor]:
    """Return the shifts for the same hyper-network and rows, computed in float64."""
    precise = HyperNetworkEditor(editor.layers, editor.settings, copy.deepcopy(editor.networks).double(), editor.slots)
    rows = {
        name: KeysAndGradients(whole(layer.keys).double(), whole(layer.gradients).double())
        for name, layer in captured.items()
    }
    return precise.aggregate(rows)


def largest_distance(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """Return the largest ||a - b|| / ||b|| over the names that both have."""
    assert some.keys() == others.keys()
    return max(float((a.view_as(b) - b).norm() / b.norm()) for a, b in ((some[name], others[name]) for name in others))


def main() -> None:
    """Compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help=f"clone of the official code at commit {COMMIT}")
    parser.add_argument("--n-edits", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in COMPARED:
        model = full_size_model(name)
        editor = HyperNetworkEditor.create(edited_layers(model, name), HyperNetworkSettings(), seed=0)
        group = random_group(name, arguments.n_edits)
        with tempfile.TemporaryDirectory() as cache:
            official = Official(arguments.official, model, editor, arguments.n_edits, Path(cache))
            found[name] = differences(model, editor, official, group, official_batches(model, group))
    reporting.write("agreement", {"official_commit": COMMIT, "n_edits": arguments.n_edits, "differences": found})
    print(found)


if __name__ == "__main__":
    main()
