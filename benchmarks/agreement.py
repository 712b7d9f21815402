"""Does this package compute what the official code does, from the same hyper-network and the same cached rows?

    python benchmarks/agreement.py --official ../malmen                  # a clone of github.com/ChenmienTan/malmen

Compared are the shifts, which are also computed in float64, and the meta-gradients. Results go to
``benchmarks/results``.
"""

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import LAYERS, edited_layers, full_size_model, random_group
from official import COMMIT, Official, official_batches

from malmen.editing.capture import Captured
from malmen.editing.editor import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import Group, meta_gradient
from malmen.models.language_model import LanguageModel
from malmen.settings import HyperNetworkSettings


def differences(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    official: Official,
    group: Group,
    batches: dict[str, list[dict[str, Tensor]]],
) -> dict[str, float]:
    """Return the largest relative distances of our shifts and clipped meta-gradients from theirs.

    Both have the same hyper-network and have seen the same rows: how each updates its statistics is left out, for the
    official variances are not the population's.
    """
    official.cache(batches)
    official.copy_into(editor)
    captured = editor.capture(model, group.edits)
    shifts, theirs, exact = editor.aggregate(captured), official.shifts(), in_float64(editor, captured)
    editor.networks.zero_grad()
    meta_gradient(model, editor, captured, group, 1.0)
    torch.nn.utils.clip_grad_norm_(editor.networks.parameters(), 1.0)
    found = {name: parameter.grad for name, parameter in editor.networks.named_parameters()}
    official.step_with_the_same_statistics(batches)
    gradients = {name: (found[name], gradient) for name, gradient in official.gradients(editor).items()}
    return {
        "shift": max(distance(shifts[name], shift) for name, shift in theirs.items()),
        "our shift to that in float64": max(distance(shifts[name], shift) for name, shift in exact.items()),
        "official shift to that in float64": max(distance(theirs[name], shift) for name, shift in exact.items()),
        "meta-gradient": max(distance(ours.view_as(other), other) for ours, other in gradients.values()),
    }


def in_float64(editor: HyperNetworkEditor, captured: dict[str, Captured]) -> dict[str, Tensor]:
    """Return the shifts for the same hyper-network and rows, computed in float64."""
    precise = HyperNetworkEditor(editor.layers, editor.settings, copy.deepcopy(editor.networks).double(), editor.slots)
    rows = {
        name: Captured(whole(layer.keys).double(), whole(layer.gradients).double()) for name, layer in captured.items()
    }
    return precise.aggregate(rows)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Return ||ours - theirs|| / ||theirs||."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def main() -> None:
    """Compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help=f"clone of the official code at commit {COMMIT}")
    parser.add_argument("--n-edits", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in LAYERS:
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
