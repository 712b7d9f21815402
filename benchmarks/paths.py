"""Measures the saving of each fast path in a training step, and the step's growth with m and the model.

    python benchmarks/paths.py

The model is a GPT-2 with random weights. The script replaces one fast path at a time by the plain computation, and
takes usual and changed steps in turns; ratios are medians over pairs of processor times. Results go to
``benchmarks/results``.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import LAYERS, full_size_model, random_group

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing import shared_equation
from malmen.editing.blocks import FrozenPrefix
from malmen.editing.capture import KeysAndGradients
from malmen.editing.layers import select_layers
from malmen.editing.malmen import HyperNetworkEditor, Solution
from malmen.editing.shared_equation import SharedEquation
from malmen.editing.training import MetaTrainer
from malmen.models import language_model
from malmen.models.language_model import LanguageModel

adam = torch.optim.Adam
Way = Callable[[], AbstractContextManager[Any]]
PLAIN_WAYS: dict[str, Way] = {
    "blocks below the edits run twice": lambda: patch.object(FrozenPrefix, "of", lambda *_: FrozenPrefix(None)),
    "last feed-forward network at all rows": lambda: patch.object(
        LanguageModel, "last_feed_forward_at", lambda *_: nullcontext()
    ),
    "edits' backward pass over prompts, too": lambda: patch.object(
        LanguageModel, "after_prompts", lambda _self, batch: batch
    ),
    "GELU in eight operations": lambda: patch.object(language_model, "fuse_activations", lambda _: None),
    "dL/dS in place of K dL/dS": lambda: patch.object(SharedEquation, "projects", PropertyMock(return_value=False)),
    "d_in unknowns in place of n": lambda: patch.object(shared_equation, "smaller_if_dual", lambda *_: False),
    "rows run twice through the hyper-network": lambda: patch.object(HyperNetworkEditor, "solve", without_graphs),
    "Adam in several passes": lambda: patch.object(torch.optim, "Adam", lambda of, lr, **_: adam(of, lr)),
}
SIZES: dict[str, dict[str, int]] = {"half as wide": {"n_embd": 384, "n_head": 6}, "half as deep": {"n_layer": 6}}
solve = HyperNetworkEditor.solve


def without_graphs(
    editor: HyperNetworkEditor, rows: dict[str, KeysAndGradients], for_backward: bool
) -> dict[str, Solution]:
    """Solve as for an edit: the backward pass runs the rows again."""
    assert for_backward
    return solve(editor, rows, for_backward=False)


class Steps:
    """Training steps of a full-size GPT-2, with changes of its shape and one way of computing."""

    def __init__(self, n_edits: int, changed: dict[str, int] | None = None, way: Way = nullcontext) -> None:
        self.way, self.group = way, random_group("gpt2", n_edits)
        with way():
            model = full_size_model("gpt2", changed=changed)
            layers = select_layers(model.module, LAYERS["gpt2"], 6)
            editor = HyperNetworkEditor.create(layers, HyperNetworkSettings(), seed=0)
            self.trainer = MetaTrainer(model, editor, TrainingSettings())
        self.seconds()  # the first step is a warm-up

    def seconds(self) -> float:
        """Take a step, and return its processor time."""
        with self.way():
            return reporting.seconds(lambda: self.trainer.step(self.group))


def over(way: Way, usual: Steps, n_edits: int, repetitions: int) -> float:
    """Return the ratio of a step's time in another way to the usual one."""
    other = Steps(n_edits, way=way)
    return statistics.median(other.seconds() / usual.seconds() for _ in range(repetitions))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-edits", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    m, repetitions = arguments.n_edits, arguments.repetitions
    usual = Steps(m)
    times = {name: over(way, usual, m, repetitions) for name, way in PLAIN_WAYS.items()}
    growth = {f"m = {n}": Steps(n).seconds() for n in (m // 2, m, 2 * m)}
    growth |= {name: Steps(m, changed).seconds() for name, changed in SIZES.items()}
    result = {"n_edits": m, "repetitions": repetitions, "times": times, "growth": growth}
    reporting.write("paths", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
