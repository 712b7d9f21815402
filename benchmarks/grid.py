"""Compares a grid of runs with and without the cache of base outputs, on GPT-2 with random weights.

    python benchmarks/grid.py                    # of full size: 2 editors x 2 m x 1 seed, one pass over 64 tuples each
    python benchmarks/grid.py --size demo        # as large as in the demo, with the demo's steps

A run trains, then edits groups of the same tuples and answers all prompts before and after. Times are processor times,
which other work on the machine hardly changes. Results go to ``benchmarks/results``.
"""

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import LAYERS, LENGTH, full_size_model, random_example

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.data.tuples import Triple
from malmen.editing.base_outputs import BaseOutputs, CachedBaseOutputs, CacheKey, LiveBaseOutputs
from malmen.editing.evaluation import edit, score
from malmen.editing.layers import EditedLayer, PostEditWeights, select_layers
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import EncodedGroup, MetaTrainer
from malmen.models.language_model import Example, LanguageModel, with_loss_weights


@dataclass(frozen=True)
class Grid:
    """The runs to compare.

    Attributes:
        model: the shape of the language model.
        last_blocks: number of edited blocks, the last ones.
        settings: settings of MALMEN; MEND differs in the sum only.
        n_edits: the values of m.
        tuples: number of tuples.
        steps: meta-steps of a run; one pass over the tuples if None.
    """

    model: dict[str, int]
    last_blocks: int
    settings: HyperNetworkSettings
    n_edits: tuple[int, ...]
    tuples: int
    steps: int | None


GRIDS = {
    "full": Grid({}, 6, HyperNetworkSettings(), (8, 16), 64, None),
    "demo": Grid(
        {"n_layer": 2, "n_embd": 192, "n_head": 4, "vocab_size": 3000},
        2,
        HyperNetworkSettings(rank=256, batch_size=64, rows_per_batch=256, graph_bytes=2**24),
        (8, 64),
        512,
        40,
    ),
}


@dataclass(frozen=True)
class Tuples:
    """Random tuples, with two equivalent prompts each."""

    edits: list[Example]
    equivalent: list[list[Example]]
    unrelated: list[Example]

    @classmethod
    def draw(cls, n: int, vocabulary: int) -> "Tuples":
        """Draw tuples of 16 tokens."""
        rng = random.Random(0)

        def draw() -> Example:
            example = random_example("gpt2", rng, LENGTH)
            tokens = tuple(token % vocabulary for token in example.tokens)
            return replace(example, tokens=tokens, targets=tuple(token % vocabulary for token in example.targets))

        edits = [draw() for _ in range(n)]
        return cls(edits, [[draw(), draw()] for _ in range(n)], [draw() for _ in range(n)])

    def group(self, chosen: slice, rng: random.Random) -> EncodedGroup:
        """Return some tuples as a group, with one equivalent prompt each."""
        equivalent = [rng.choice(prompts) for prompts in self.equivalent[chosen]]
        return Triple(
            with_loss_weights(self.edits[chosen]),
            with_loss_weights(equivalent),
            with_loss_weights(self.unrelated[chosen]),
        )

    def prompts(self) -> list[Example]:
        """Return all prompts."""
        return [*self.edits, *(prompt for prompts in self.equivalent for prompt in prompts), *self.unrelated]


def run(
    model: LanguageModel,
    layers: list[EditedLayer],
    grid: Grid,
    settings: HyperNetworkSettings,
    n_edits: int,
    tuples: Tuples,
    cache: CachedBaseOutputs | None,
) -> dict[str, float]:
    """Train and measure an editor; return the processor seconds of both."""
    editor = HyperNetworkEditor.create(layers, settings, seed=0)
    base_outputs: BaseOutputs = cache or LiveBaseOutputs(model, layers)
    trainer, rng = MetaTrainer(model, editor, TrainingSettings(), base_outputs=base_outputs), random.Random(0)
    starts = range(0, grid.tuples, n_edits)
    groups = [slice(start, start + n_edits) for start in starts]
    steps = len(groups) if grid.steps is None else grid.steps

    def train() -> None:
        for i in range(steps):
            trainer.step(tuples.group(groups[i % len(groups)], rng))

    def evaluate() -> None:
        for group in groups:
            measure(model, editor, tuples.group(group, rng), base_outputs)

    return {"training": reporting.seconds(train), "evaluation": reporting.seconds(evaluate)}


def measure(model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup, base_outputs: BaseOutputs) -> None:
    """Answer all prompts of a group before and after its edit."""
    size, kinds = editor.settings.batch_size, (group.edit, group.equivalent, group.unrelated)
    for examples in kinds:
        score(model, examples, size, lambda batch: base_outputs.before(batch)[0])
    shifts, _ = edit(model, editor, group.edit, base_outputs)

    def after(batch: Any) -> torch.Tensor:
        with base_outputs.after_prefix(batch):
            return model.answer_logits(batch)

    with PostEditWeights(layers=editor.layers, shifts=shifts).applied():
        for examples in kinds:
            score(model, examples, size, after)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=GRIDS, default="full")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    grid = GRIDS[arguments.size]
    model = full_size_model("gpt2", changed=grid.model)
    layers = select_layers(model.module, LAYERS["gpt2"], grid.last_blocks)
    tuples = Tuples.draw(grid.tuples, model.module.config.vocab_size)
    cache = CachedBaseOutputs(model, layers, "answer", tuples.edits, tuples.prompts())
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        contents = CacheKey("random", [layer.name for layer in layers], "answer")
        writing = reporting.seconds(lambda: cache.write(Path(folder), contents, grid.settings.batch_size))
        cache = CachedBaseOutputs.open(Path(folder), model, layers, contents)
        for settings, n_edits in product((grid.settings, replace(grid.settings, aggregation="sum")), grid.n_edits):
            plain = run(model, layers, grid, settings, n_edits, tuples, None)
            cached = run(model, layers, grid, settings, n_edits, tuples, cache)
            measured.append({"aggregation": settings.aggregation, "n_edits": n_edits, "plain": plain, "cached": cached})
            print(measured[-1], flush=True)
    totals = {way: sum(sum(point[way].values()) for point in measured) for way in ("plain", "cached")}
    totals |= {"writing": writing, "ratio": totals["plain"] / (totals["cached"] + writing)}
    print(totals)
    about = {"size": arguments.size, "tuples": grid.tuples, "cache_gb": cache.size / 1e9}
    reporting.write(f"grid_{arguments.size}", {**about, "processor_seconds": totals, "measured": measured})


if __name__ == "__main__":
    main()
