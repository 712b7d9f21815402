"""MEMIT on a GPT-2 of full size: requests optimised together against one at a time, in turns.

    python benchmarks/memit.py

One at a time, it is also measured without the start behind the edited blocks, that is, with whole runs of the model.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from compare import seconds
from full_size import full_size_model

from malmen.editing.blocks import Block, hidden_state, with_state
from malmen.editing.requests import Passage, Request
from malmen.editing.subjects import SubjectSpan
from malmen.editing.targets import optimise_targets
from malmen.models.language_model import Example
from malmen.settings import MemitSettings

LAST_EDITED = "transformer.h.7.mlp.c_proj"
PROMPT, ANSWER, PREFIX, PREFIXES = 13, 3, 10, 5


@dataclass(frozen=True)
class WholeRuns(Block):
    """A block behind which nothing resumes: the delta is added where it stands, and every run is a whole one."""

    @contextmanager
    def resuming(self, output: Any, state: Any) -> Iterator[None]:
        """Inside the ``with`` block, let the model run whole, with the hidden state behind the block replaced."""

        def replaced(_module: Any, _inputs: Any, computed: Any) -> Any:
            moved: Tensor = state()
            return with_state(computed, hidden_state(computed) + moved - hidden_state(output))

        with self.module.register_forward_hook(replaced):
            yield


def passage(rng: random.Random, before: int) -> Passage:
    """Return random tokens: so many before a prompt and its answer; the subject ends within the prompt."""
    length = before + PROMPT + ANSWER - 1
    tokens = tuple(rng.randrange(1, 50_000) for _ in range(length))
    targets = (*tokens[1 - ANSWER :], 7)
    weight = 1 / (ANSWER * (1 + PREFIXES))
    return Passage(Example(tokens, tuple(range(length - ANSWER, length)), targets, weight), before + PROMPT // 2)


def request(rng: random.Random) -> Request:
    """Return an edit in six contexts, with the essence of its subject."""
    contexts = tuple(passage(rng, before) for before in [0, *[PREFIX] * PREFIXES])
    essence = Passage(Example(tuple(rng.randrange(1, 50_000) for _ in range(5)), (4,), (0,)), 2)
    return Request(contexts, essence, SubjectSpan(0, 1, "stated"))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2, help="Adam's steps; the defaults of MEMIT take 25")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = full_size_model("gpt2")
    rng = random.Random(0)
    requests = [request(rng) for _ in range(arguments.requests)]
    block = Block.around(model.module, LAST_EDITED)
    whole = WholeRuns(block.module, block.below)
    single = MemitSettings(steps=arguments.steps, stop_loss=0, batch_size=1)
    together = replace(single, batch_size=arguments.requests)
    ways = {
        "together": (block, together),
        "one at a time": (block, single),
        "one at a time, whole runs": (whole, single),
    }
    found = {name: optimise_targets(model, *way[:1], requests[:4], way[1]) for name, way in ways.items()}
    error = max(((found["together"] - other).norm() / other.norm()).item() for other in found.values())
    turns = [
        {name: seconds(partial(optimise_targets, model, at, requests, how)) for name, (at, how) in ways.items()}
        for _ in range(arguments.repetitions)
    ]
    result = {name: statistics.median(turn[name] for turn in turns) for name in ways}
    ratios = {name: statistics.median(turn[name] / turn["together"] for turn in turns) for name in ways}
    reporting.write("memit", {**vars(arguments), "seconds": result, "ratio": ratios, "relative difference": error})
    print({"seconds": result, "ratio": ratios, "relative difference": error})


if __name__ == "__main__":
    main()
