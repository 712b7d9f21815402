"""Training and editing, this package against the official code, in turns in one process on the same inputs.

    python benchmarks/compare.py --official ../malmen                    # a clone of github.com/ChenmienTan/malmen
    python benchmarks/compare.py                                          # this package alone

Times are medians over repetitions that take turns, ratios medians over the pairs. Also compared are the shifts and the
meta-gradients of both for the same hyper-network and the same cached rows. Results go to ``benchmarks/results``.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import LAYERS, edited_layers, full_size_model, random_group
from official import COMMIT, Official, official_batches

from malmen.editing.capture import Captured
from malmen.editing.editor import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import Group, MetaTrainer, meta_gradient
from malmen.models.language_model import LanguageModel
from malmen.settings import HyperNetworkSettings, TrainingSettings

Task = Callable[[], Any]


def seconds(task: Task) -> float:
    """Return how long a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def in_turns(ours: Task, theirs: Task | None, repetitions: int) -> dict[str, Any]:
    """Time two tasks in turns, after one turn that does not count if there are several; the second may be missing."""
    tasks = [task for task in (ours, theirs) if task]
    warm_up = int(repetitions > 1)
    turns = [[seconds(task) for task in tasks] for _ in range(repetitions + warm_up)][warm_up:]
    result: dict[str, Any] = {"seconds": statistics.median(turn[0] for turn in turns)}
    if theirs:
        result["official_seconds"] = statistics.median(turn[1] for turn in turns)
        result["ratio"] = statistics.median(turn[1] / turn[0] for turn in turns)
    return result


def compare(name: str, n_edits: int, arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Measure one model at one m."""
    model = full_size_model(name)
    settings = HyperNetworkSettings(batch_size=arguments.batch_size)
    editor = HyperNetworkEditor.create(edited_layers(model, name), settings, seed=0)
    trainer = MetaTrainer(model, editor, TrainingSettings())
    group = random_group(name, n_edits)
    result: dict[str, Any] = {"model": name, "n_edits": n_edits}
    if arguments.official is None:
        result["training step"] = in_turns(lambda: trainer.step(group), None, arguments.repetitions)
        captured = editor.capture(model, group.edits)
        return result | {"editing": in_turns(lambda: editor.aggregate(captured), None, arguments.repetitions)}
    official = Official(arguments.official, model, editor, n_edits, cache)
    batches = official_batches(model, group)
    result["training step"] = in_turns(
        lambda: trainer.step(group), lambda: official.step(batches), arguments.repetitions
    )
    official.cache(batches)
    captured = editor.capture(model, group.edits)
    result["editing"] = in_turns(lambda: editor.aggregate(captured), official.shifts, arguments.repetitions)
    return result | {"relative difference": differences(model, editor, official, group, batches)}


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
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help=f"clone of the official repository at commit {COMMIT}")
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--n-edits", nargs="+", type=int, default=[64], help="also 512, which takes minutes a step")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences at once; the official code takes 32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = []
    for n_edits in arguments.n_edits:
        for name in arguments.models:
            with tempfile.TemporaryDirectory() as cache:
                measured.append(compare(name, n_edits, arguments, Path(cache)))
            print(measured[-1], flush=True)
    about = {"official_commit": COMMIT if arguments.official else None, "repetitions": arguments.repetitions}
    sizes = "-".join(map(str, arguments.n_edits))
    reporting.write(f"compare_m{sizes}", {**about, "batch_size": arguments.batch_size, "measured": measured})


if __name__ == "__main__":
    main()
