"""What each fast path saves of a training step, and how the step grows with m, the width and the depth of the model.

    python benchmarks/paths.py

A GPT-2 with random weights; each fast path is replaced by the plain way in turn, all others left as they are. Times are
processor time. Results go to ``benchmarks/results``.
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

from malmen.editing.aggregation import NormalEquation
from malmen.editing.blocks import Trunk
from malmen.editing.editor import HyperNetworkEditor, Solution
from malmen.editing.layers import select_layers
from malmen.editing.training import MetaTrainer
from malmen.models.language_model import LanguageModel
from malmen.settings import HyperNetworkSettings, TrainingSettings

primal = NormalEquation.of.__func__  # type: ignore[attr-defined]
PLAIN_WAYS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "all fast paths": nullcontext,
    "blocks below the edits run twice": lambda: patch.object(Trunk, "below", lambda *_: Trunk(None)),
    "last feed-forward network at all rows": lambda: patch.object(
        LanguageModel, "last_feed_forward_at", lambda *_: nullcontext()
    ),
    "edits' backward pass over prompts, too": lambda: patch.object(
        LanguageModel, "behind_prompts", lambda _self, batch: batch
    ),
    "dL/dS in place of K dL/dS": lambda: patch.object(Solution, "weighing_keys", PropertyMock(return_value=None)),
    "d_in unknowns in place of n": lambda: patch.object(
        NormalEquation, "of", classmethod(lambda cls, keys, weight: primal(cls, keys, weight, dual=False))
    ),
}
SIZES: dict[str, Any] = {"GPT-2": {}, "half as wide": {"n_embd": 384, "n_head": 6}, "half as deep": {"n_layer": 6}}


class Step:
    """A training step of a GPT-2."""

    def __init__(self, n_edits: int, graph_bytes: int | None = None, fused: bool = True, **size: int) -> None:
        model = full_size_model("gpt2", changed=size)
        settings = HyperNetworkSettings() if graph_bytes is None else HyperNetworkSettings(graph_bytes=graph_bytes)
        layers = select_layers(model.module, LAYERS["gpt2"], 6)
        self.trainer = MetaTrainer(model, HyperNetworkEditor.create(layers, settings, seed=0), TrainingSettings())
        self.group = random_group("gpt2", n_edits)
        if not fused:
            self.trainer.optimiser = torch.optim.Adam(self.trainer.editor.networks.parameters(), lr=1e-5)

    def seconds(self, repetitions: int) -> float:
        """Return the processor time of a step, after one that does not count."""
        times = [reporting.seconds(lambda: self.trainer.step(self.group)) for _ in range(1 + repetitions)]
        return statistics.median(times[1:])


def paths(n_edits: int, repetitions: int) -> dict[str, float]:
    """Return the seconds of a step with each fast path replaced."""
    found = {}
    for name, plain in PLAIN_WAYS.items():
        with plain():
            found[name] = Step(n_edits).seconds(repetitions)
    found["rows run twice through the hyper-network"] = Step(n_edits, graph_bytes=0).seconds(repetitions)
    return found | {"Adam in several passes": Step(n_edits, fused=False).seconds(repetitions)}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-edits", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    m, repetitions = arguments.n_edits, arguments.repetitions
    taken = paths(m, repetitions)
    growth = {f"m = {n}": Step(n).seconds(repetitions) for n in (m // 2, m, 2 * m)}
    growth |= {name: Step(m, **size).seconds(repetitions) for name, size in SIZES.items() if size}
    reporting.write("paths", {"n_edits": m, "repetitions": repetitions, "seconds": taken, "growth": growth})
    print(json.dumps({"seconds": taken, "growth": growth}, indent=1))


if __name__ == "__main__":
    main()
