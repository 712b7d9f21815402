"""The models and tuples that the benchmarks run: full-size BERT-base and GPT-2, with random weights and random tokens.

Speed does not depend on what the weights and tokens are, so nothing is downloaded.
"""

import random
from typing import Any

import torch
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel

from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.training import Group
from malmen.models.fact_checker import FactChecker
from malmen.models.language_model import Example, LanguageModel, weigh
from malmen.models.tasks import TASKS

LAYERS = {"bert-base": r"bert\.encoder\.layer\.\d+\.output\.dense", "gpt2": r"transformer\.h\.\d+\.mlp\.c_proj"}
"""By model, the layers of which the last six are edited, as in the paper."""
LENGTH = 16
ANSWER_LENGTH = 3


class NoTokenizer:
    """Stands where a model's tokenizer would: the tuples are made of token ids."""

    pad_token_id = 0


def full_size_model(name: str, seed: int = 0) -> LanguageModel:
    """Return a model of the published shape whose weights are drawn from a seed."""
    torch.manual_seed(seed)
    module: Any
    if name == "bert-base":
        module, task = FactChecker(BertConfig()), TASKS["fact_checking"]
    else:
        module, task = GPT2LMHeadModel(GPT2Config()), TASKS["question_answering"]
    tokenizer: Any = NoTokenizer()
    return LanguageModel(module, tokenizer, task)


def edited_layers(model: LanguageModel, name: str) -> list[EditedLayer]:
    """Return the second FFN layers of the last six blocks."""
    return select_layers(model.module, LAYERS[name], 6)


def random_group(name: str, n_edits: int, seed: int = 0, lengths: tuple[int, int] = (LENGTH, LENGTH)) -> Group:
    """Return a group of edits with an equivalent and an unrelated tuple each, all lengths within a range alike."""
    rng = random.Random(seed)
    return Group(*(weigh([random_example(name, rng, rng.randint(*lengths)) for _ in range(n_edits)]) for _ in range(3)))


def random_example(name: str, rng: random.Random, length: int) -> Example:
    """Return a tuple: a claim, or a question with an answer of three tokens, the last of which is not read."""
    vocabulary = (BertConfig() if name == "bert-base" else GPT2Config()).vocab_size
    tokens = tuple(rng.randrange(1, vocabulary) for _ in range(length))
    if name == "bert-base":
        return Example(tokens, (0,), (rng.randrange(2),))
    targets = (*tokens[1 - ANSWER_LENGTH :], rng.randrange(1, vocabulary))
    return Example(tokens, tuple(range(length - ANSWER_LENGTH, length)), targets)
