"""Tiny random models of every architecture, and tuples for them: a BERT checks claims, the others answer questions."""

import random
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.models.gptj.modeling_gptj import GPTJAttention
from transformers.models.t5.modeling_t5 import T5LayerNorm

from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture, FfnLayer
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.config.model_registry import read_registry
from malmen.config.scratch import ScratchSettings
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import EncodedGroup, encode_group
from malmen.models.fact_checker import FactChecker
from malmen.models.language_model import LanguageModel
from malmen.models.scratch import new_model, train_tokenizer
from malmen.models.tasks import TASKS

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
TWO_STACKS: tuple[Architecture, ...] = ("t5", "bart")
ENTRIES: dict[Architecture, str] = {
    "bert": "bert-base",
    "gpt2": "gpt2",
    "gptj": "gpt-j",
    "t5": "t5-xl",
    "bart": "bart-base",
}
FFN: dict[Architecture, dict[FfnLayer, list[str]]] = {
    architecture: read_registry()[name]["ffn"] for architecture, name in ENTRIES.items()
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
    if architecture != "bert":
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
    if dtype == torch.float64:
        keep_float64(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.7 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return LanguageModel(module.to(dtype), tokenizer, TASKS[TASK_OF[architecture]])


@torch.no_grad()
def spread_attention(model: LanguageModel) -> LanguageModel:
    """Make queries and keys of a model's attention small, so that a change at one token reaches others."""
    for name, parameter in model.module.named_parameters():
        if "c_attn.weight" in name:
            parameter[:, :32] *= 0.2  # queries and keys, then values
        if "q_proj" in name or "k_proj" in name:
            parameter.mul_(0.2)
    return model


def keep_float64(module: nn.Module) -> None:
    """Let a module compute in float64 also what transformers computes in float32 whatever the module's precision is.

    T5's normalisation is that of ``torch.nn.RMSNorm``; GPT-J's attention is that of torch.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, T5LayerNorm):
                norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(parent, name, norm)
        if isinstance(parent, GPTJAttention):
            parent._attn = attention  # type: ignore[method-assign]


def attention(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
    return F.scaled_dot_product_attention(query, key, value, attention_mask, is_causal=attention_mask is None), None


def ffn_layers(model: LanguageModel, kind: FfnLayer = "second", last: int = 2) -> list[EditedLayer]:
    """Return FFN layers of the last blocks of each stack."""
    patterns = FFN[architecture_of(model)][kind]
    return [layer for pattern in patterns for layer in select_layers(model.module, pattern, last)]


def tiny_editor(model: LanguageModel, settings: HyperNetworkSettings, seed: int = 0) -> HyperNetworkEditor:
    """Return a new editor in float64 of FFN layers of the last blocks."""
    editor = HyperNetworkEditor.create(ffn_layers(model), settings, seed)
    editor.networks.double()
    return editor


def architecture_of(model: LanguageModel) -> Architecture:
    return next(name for name in ARCHITECTURES if name == model.module.config.model_type)


def encoded_group(model: LanguageModel, n: int) -> EncodedGroup:
    return encode_group(model, edit_tuples(architecture_of(model), n), random.Random(0))


def save_model(folder: Path, model: LanguageModel) -> Path:
    """Save a model and its tokenizer as an ordinary directory."""
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder
