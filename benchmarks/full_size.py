"""The models and tuples that the benchmarks run: BERT-base, GPT-2 and GPT-J of full size, all numbers random.

Speed does not depend on the values of weights and tokens, so nothing is downloaded.
"""

import argparse
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import reporting
import torch
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM
from transformers.tokenization_utils_base import LARGE_INTEGER

from malmen.config.base import TaskName
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.data.tuples import Triple
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.training import EncodedGroup
from malmen.models.fact_checker import FactChecker
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.models.tasks import TASKS

LAYERS = {
    "bert-base": r"bert\.encoder\.layer\.\d+\.output\.dense",
    "gpt2": r"transformer\.h\.\d+\.mlp\.c_proj",
    "gpt-j": r"transformer\.h\.\d+\.mlp\.fc_out",
}
"""The pattern of the layers, by model; as in the paper, editors edit the last six."""
LENGTH = 16
ANSWER_LENGTH = 3


class NoTokenizer:
    """A placeholder for the tokenizer: the tuples consist of token ids."""

    pad_token_id = 0
    model_max_length = LARGE_INTEGER
    all_special_ids: ClassVar[list[int]] = []
    added_tokens_decoder: ClassVar[dict[int, str]] = {}

    def __len__(self) -> int:
        """Return how many token ids may be tried; every model has more."""
        return 100

    def get_vocab(self) -> dict[str, int]:
        """Return these token ids, as words."""
        return {str(i): i for i in range(len(self))}


COMPARED = ("bert-base", "gpt2")
"""The models that a CPU can run."""
MODELS: dict[str, tuple[Any, Any, TaskName, torch.dtype]] = {
    "bert-base": (FactChecker, BertConfig, "fact_checking", torch.float32),
    "gpt2": (GPT2LMHeadModel, GPT2Config, "question_answering", torch.float32),
    "gpt-j": (GPTJForCausalLM, GPTJConfig, "question_answering", torch.bfloat16),
}
"""Class, configuration, task and precision, by model."""
SIZE_KEYS = {
    "bert-base": ("num_hidden_layers", "hidden_size", "num_attention_heads"),
    "gpt2": ("n_layer", "n_embd", "n_head"),
    "gpt-j": ("n_layer", "n_embd", "n_head"),
}
"""What configurations call blocks, width and heads, by model."""


def full_size_model(name: str, device: str = "cpu", changed: Mapping[str, int] | None = None) -> LanguageModel:
    """Return a model of the published shape, with the given changes and random weights."""
    make, configure, task, dtype = MODELS[name]
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module: Any = make(configure(**(changed or {})))
    finally:
        torch.set_default_dtype(usual)
    tokenizer: Any = NoTokenizer()
    return LanguageModel(module, tokenizer, TASKS[task])


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a smaller model, with which a benchmark can be tried anywhere, and of the results' folder."""
    parser.add_argument("--blocks", type=int, help="number of blocks of a smaller model, at least 7")
    parser.add_argument("--width", type=int, help="width of a smaller model, a multiple of 64")
    parser.add_argument("--out", type=Path, default=reporting.RESULTS, help="folder of the result")


def changed_size(name: str, arguments: argparse.Namespace) -> dict[str, int]:
    """Return how the configuration of the asked size differs from the published one."""
    blocks, width, heads = SIZE_KEYS[name]
    changed = {blocks: arguments.blocks} if arguments.blocks else {}
    if arguments.width:
        changed |= {width: arguments.width, heads: arguments.width // 64}
        changed |= {"bert-base": {"intermediate_size": 4 * arguments.width}, "gpt-j": {"rotary_dim": 32}}.get(name, {})
    return changed


def result_name(name: str, arguments: argparse.Namespace) -> str:
    """Return the name of a result file, which tells one of a smaller model."""
    return f"small_{name}" if arguments.blocks or arguments.width else name


def settings_on(device: str) -> HyperNetworkSettings:
    """Return an editor's settings: the defaults, on a GPU with 16 GiB for graphs, so that most rows run once."""
    return HyperNetworkSettings(graph_bytes=2**34) if device == "cuda" else HyperNetworkSettings()


def edited_layers(model: LanguageModel, name: str) -> list[EditedLayer]:
    """Return the second FFN layers of the last six blocks."""
    return select_layers(model.module, LAYERS[name], 6)


def random_group(name: str, n_edits: int, seed: int = 0, lengths: tuple[int, int] = (LENGTH, LENGTH)) -> EncodedGroup:
    """Return a group of random edits, equivalent and unrelated tuples; their lengths are uniform in a range."""
    rng = random.Random(seed)
    return Triple(
        *(
            with_loss_weights([random_example(name, rng, rng.randint(*lengths)) for _ in range(n_edits)])
            for _ in range(3)
        )
    )


@cache
def vocabulary_size(name: str) -> int:
    """Return the published number of tokens."""
    return int(MODELS[name][1]().vocab_size)


def random_example(name: str, rng: random.Random, length: int) -> Example:
    """Return a tuple: a claim, or a question with an answer of three tokens, the last of which is not read."""
    vocabulary = vocabulary_size(name)
    tokens = tuple(rng.randrange(1, vocabulary) for _ in range(length))
    if name == "bert-base":
        return Example(tokens, (0,), (rng.randrange(2),))
    targets = (*tokens[1 - ANSWER_LENGTH :], rng.randrange(1, vocabulary))
    return Example(tokens, tuple(range(length - ANSWER_LENGTH, length)), targets)
