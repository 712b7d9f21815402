"""Tiny random models and tuples for them: a BERT that checks claims and a GPT-2 that answers questions."""

import random
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.training import Group, encode_group
from malmen.models.fact_checker import FactChecker
from malmen.models.language_model import TASKS, LanguageModel
from malmen.models.pretraining import new_model, train_tokenizer
from malmen.settings import FfnLayer, ScratchSettings

Architecture = Literal["bert", "gpt2"]

ARCHITECTURES: tuple[Architecture, ...] = ("bert", "gpt2")
FFN: dict[Architecture, dict[FfnLayer, str]] = {
    "bert": {
        "first": r"bert\.encoder\.layer\.\d+\.intermediate\.dense",
        "second": r"bert\.encoder\.layer\.\d+\.output\.dense",
    },
    "gpt2": {"first": r"transformer\.h\.\d+\.mlp\.c_fc", "second": r"transformer\.h\.\d+\.mlp\.c_proj"},
}
NAMES = ("Ada Lund", "Bram Okafor", "Cleo", "Dov van der Meer", "Elin Ruiz", "Farah Haddad", "Goran Petit")
WORKS = ("a song", "the third novel", "a very long play in verse", "one film")
PLACES = ("Avaria", "the Isle of Bel", "Cor", "New Dunmore by the Sea", "Est")
SHAPES = {name: ScratchSettings(name, layers=3, hidden_size=16, heads=2, vocabulary=450) for name in ARCHITECTURES}


def edit_tuples(architecture: Architecture, n: int) -> list[EditTuple]:
    """Return up to 28 different tuples and then the same ones under other ids; prompts and answers vary in length."""
    return [edit_tuple(architecture, i) for i in range(n)]


def edit_tuple(architecture: Architecture, i: int) -> EditTuple:
    name, work, place = NAMES[i % 7], WORKS[i // 7 % 4], PLACES[i % 5]
    if architecture == "gpt2":
        prompts = (
            f"Where did {name} write {work}?",
            f"{work} by {name} was written in",
            f"Say where {name} wrote {work}:",
        )
        unrelated = PromptAnswer(f"Who came from {place} to {PLACES[i % 3]}?", NAMES[i % 4])
        return EditTuple(f"q{i}", PromptAnswer(prompts[0], place), prompts[1:], unrelated)
    claims = f"{name} wrote {work}.", f"{work} was written by {name}.", f"It was {name} who wrote {work} in {place}."
    unrelated = PromptAnswer(f"{place} lies near {PLACES[i % 3]}.", ("REFUTES", "SUPPORTS")[i % 2])
    return EditTuple(f"c{i}", PromptAnswer(claims[0], ("SUPPORTS", "REFUTES")[i % 3 % 2]), claims[1:], unrelated)


def tiny_tokenizer(architecture: Architecture) -> PreTrainedTokenizerBase:
    text = [p for t in edit_tuples(architecture, 28) for p in (t.edit.prompt, *t.equivalent, t.unrelated.prompt)]
    return train_tokenizer([*text, *PLACES, *NAMES], SHAPES[architecture])


def tiny_model(architecture: Architecture, dtype: torch.dtype = torch.float64, seed: int = 0) -> LanguageModel:
    """Return a model of 3 blocks of width 16 whose weights are large enough for every operation to matter."""
    tokenizer = tiny_tokenizer(architecture)
    module: Any = new_model(SHAPES[architecture], tokenizer)
    if architecture == "bert":
        module = FactChecker(module.config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.7 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    task = TASKS["fact_checking" if architecture == "bert" else "question_answering"]
    return LanguageModel(module.to(dtype), tokenizer, task)


def ffn_layers(model: LanguageModel, kind: FfnLayer = "second", last: int = 2) -> list[EditedLayer]:
    return select_layers(model.module, FFN[architecture_of(model)][kind], last)


def architecture_of(model: LanguageModel) -> Architecture:
    return "bert" if isinstance(model.module, FactChecker) else "gpt2"


def encoded_group(model: LanguageModel, n: int) -> Group:
    return encode_group(model, edit_tuples(architecture_of(model), n), random.Random(0))
