"""Compares MEMIT's optimisation of hidden states in this package and a plain one, on a full-size GPT-2, in turns.

    python benchmarks/memit.py
    python benchmarks/memit.py --device cuda --requests 256

The plain one follows the paper literally: one request after the other, and in each step the whole model over all
contexts, with logits at all positions. Times are per request: processor time, or on a GPU elapsed time.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import add_size_options, changed_size, full_size_model, result_name

from malmen.config.memit import MemitSettings
from malmen.editing.blocks import Block, hidden_state, with_state
from malmen.editing.memit.requests import Passage, Request
from malmen.editing.memit.subjects import SubjectSpan
from malmen.editing.memit.targets import optimise_targets
from malmen.models.language_model import Example, LanguageModel

LAST_EDITED = 7
PROMPT, ANSWER, PREFIX, PREFIXES = 13, 3, 10, 5


class PlainSearch:
    """The plain optimisation for one request.

    Args:
        module: a GPT-2 of transformers.
        request: the edit.
        settings: settings of the optimisation.
    """

    def __init__(self, module: Any, request: Request, settings: MemitSettings) -> None:
        assert request.essence
        self.module, self.request, self.settings = module, request, settings
        self.passages = [*request.contexts, request.essence]
        tokens = [torch.tensor(passage.example.tokens, device=module.device) for passage in self.passages]
        self.inputs = pad_sequence(tokens, batch_first=True)
        with torch.no_grad():
            logits, states = self.run(None)
        self.state = states[0, request.contexts[0].position]
        self.before = logits[-1, request.essence.example.answer_positions[0]].log_softmax(-1)

    def run(self, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return all logits, and the hidden state after the edited block, without the delta."""
        seen: list[Tensor] = []

        def add(_module: Any, _inputs: Any, output: Any) -> Any:
            state = hidden_state(output)
            seen.append(state.detach().clone())
            if delta is None:
                return None
            moved = state.clone()
            for number, passage in enumerate(self.passages):
                moved[number, passage.position] = moved[number, passage.position] + delta
            return with_state(output, moved)

        with self.module.transformer.h[LAST_EDITED].register_forward_hook(add):
            logits = self.module(self.inputs).logits
        return logits, seen[0]

    def loss(self, delta: Tensor) -> Tensor:
        """Return the loss."""
        log_probabilities = self.run(delta)[0].log_softmax(-1)
        total = self.settings.weight_decay * delta.square().sum() / self.state.square().sum()
        for number, passage in enumerate(self.request.contexts):
            rows = log_probabilities[number, list(passage.example.answer_positions)]
            total = total - passage.example.weight * rows[range(ANSWER), list(passage.example.targets)].sum()
        assert self.request.essence
        after = log_probabilities[-1, self.request.essence.example.answer_positions[0]]
        return total + self.settings.kl_coefficient * F.kl_div(after, self.before, reduction="sum", log_target=True)

    def target(self) -> Tensor:
        """Return h + delta, (d,)."""
        delta = torch.zeros_like(self.state, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=self.settings.learning_rate)
        for _ in range(self.settings.steps):
            optimiser.zero_grad()
            self.loss(delta).backward()
            optimiser.step()
            longest = self.settings.max_relative_norm * self.state.norm()
            with torch.no_grad():
                delta *= (longest / delta.norm()).clamp(max=1)
        return self.state + delta.detach()


def passage(rng: random.Random, before: int) -> Passage:
    """Return random tokens of a prefix, a prompt and its answer; the subject ends within the prompt."""
    length = before + PROMPT + ANSWER - 1
    tokens = tuple(rng.randrange(1, 50_000) for _ in range(length))
    targets = (*tokens[1 - ANSWER :], 7)
    weight = 1 / (ANSWER * (1 + PREFIXES))
    return Passage(Example(tokens, tuple(range(length - ANSWER, length)), targets, weight), before + PROMPT // 2)


def random_request(rng: random.Random) -> Request:
    """Return an edit in six contexts, with the essence of its subject."""
    contexts = tuple(passage(rng, before) for before in [0, *[PREFIX] * PREFIXES])
    essence = Passage(Example(tuple(rng.randrange(1, 50_000) for _ in range(5)), (4,), (0,)), 2)
    return Request(contexts, essence, SubjectSpan(0, 1, "stated", certain=True))


def plain_model(model: LanguageModel, changed: dict[str, Any]) -> Any:
    """Return the same GPT-2 as an unchanged model of transformers."""
    module = GPT2LMHeadModel(GPT2Config(**changed)).eval().requires_grad_(False)
    module.load_state_dict(model.module.state_dict())
    return module.to(model.device)


def ways(
    model: LanguageModel, plain: Any, settings: MemitSettings, batch_size: int
) -> dict[str, Callable[[Sequence[Request]], Tensor]]:
    """Return the compared variants."""
    block = Block.around(model, f"transformer.h.{LAST_EDITED}.mlp.c_proj")
    single, together = replace(settings, batch_size=1), replace(settings, batch_size=batch_size)
    return {
        "together": lambda requests: optimise_targets(model, block, requests, together),
        "one at a time": lambda requests: optimise_targets(model, block, requests, single),
        "plain": lambda requests: torch.stack([PlainSearch(plain, r, single).target() for r in requests]),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=16, help="number of requests for this package")
    parser.add_argument("--plain-requests", type=int, default=2, help="number of them for the plain one")
    parser.add_argument("--steps", type=int, default=25, help="Adam's steps")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_size_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = random.Random(0)
    requests = [random_request(rng) for _ in range(arguments.requests)]
    settings = MemitSettings(steps=arguments.steps, stop_loss=0)
    changed = changed_size("gpt2", arguments)
    model = full_size_model("gpt2", arguments.device, changed)
    compared = ways(model, plain_model(model, changed), settings, arguments.requests)
    few = {name: requests[: arguments.plain_requests] if name == "plain" else requests for name in compared}
    found: dict[str, Tensor] = {}

    def seconds(name: str) -> float:
        taken = reporting.seconds(lambda: found.update({name: compared[name](few[name])}), arguments.device)
        return taken / len(few[name])

    if arguments.device == "cuda":  # the first run loads libraries
        for way in compared.values():
            way(requests[:1])
    turns = [{name: seconds(name) for name in compared} for _ in range(arguments.repetitions)]
    expected = found["plain"]
    result = {
        "seconds a request": {name: statistics.median(turn[name] for turn in turns) for name in compared},
        "plain over": {name: statistics.median(turn["plain"] / turn[name] for turn in turns) for name in compared},
        "relative difference": {
            name: ((other[: len(expected)] - expected).norm() / expected.norm()).item() for name, other in found.items()
        },
    }
    name = result_name("memit" if arguments.device == "cpu" else "memit_cuda", arguments)
    about = {key: value for key, value in vars(arguments).items() if key not in {"out", "blocks", "width"}}
    reporting.write(name, {**about, **result}, arguments.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
