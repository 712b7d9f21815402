"""Names of the linear layers of known architectures, to check a configuration without loading a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malmen.config.base import TaskName
from malmen.config.scratch import ScratchSettings, Shape

TASK_OF: dict[str, TaskName] = {
    "bert": "fact_checking",
    "gpt2": "question_answering",
    "gptj": "question_answering",
    "t5": "sequence_to_sequence",
    "bart": "sequence_to_sequence",
}
"""How an architecture answers."""


def named(prefix: str, *names: str) -> tuple[str, ...]:
    """Return names with a common beginning."""
    return tuple(prefix + name for name in names)


BERT = "bert.encoder.layer.{}."
GPT = "transformer.h.{}."
T5 = ".block.{}.layer."
BART = ".layers.{}."
LINEAR_LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "bert": (
        (
            *named(f"{BERT}attention.", "self.query", "self.key", "self.value", "output.dense"),
            *named(BERT, "intermediate.dense", "output.dense"),
        ),
    ),
    "gpt2": ((*named(f"{GPT}attn.", "c_attn", "c_proj"), *named(f"{GPT}mlp.", "c_fc", "c_proj")),),
    "gptj": (
        (
            *named(f"{GPT}attn.", "k_proj", "v_proj", "q_proj", "out_proj"),
            *named(f"{GPT}mlp.", "fc_in", "fc_out"),
        ),
    ),
    "t5": (
        (
            *named(f"encoder{T5}0.SelfAttention.", "q", "k", "v", "o"),
            *named(f"encoder{T5}1.DenseReluDense.", "wi_0", "wi_1", "wo"),
        ),
        (
            *named(f"decoder{T5}0.SelfAttention.", "q", "k", "v", "o"),
            *named(f"decoder{T5}1.EncDecAttention.", "q", "k", "v", "o"),
            *named(f"decoder{T5}2.DenseReluDense.", "wi_0", "wi_1", "wo"),
        ),
    ),
    "bart": (
        (
            *named(f"model.encoder{BART}self_attn.", "k_proj", "v_proj", "q_proj", "out_proj"),
            *named(f"model.encoder{BART}", "fc1", "fc2"),
        ),
        (
            *named(f"model.decoder{BART}self_attn.", "k_proj", "v_proj", "q_proj", "out_proj"),
            *named(f"model.decoder{BART}encoder_attn.", "k_proj", "v_proj", "q_proj", "out_proj"),
            *named(f"model.decoder{BART}", "fc1", "fc2"),
        ),
    ),
}
"""By architecture and stack, the layers of one Transformer block; ``{}`` stands for the block's number."""


def layer_names(architecture: str, *blocks: int) -> list[str]:
    """Return the names of all linear layers inside the blocks, in the model's order; empty if it is not known.

    Args:
        architecture: the model type, as in a model's ``config.json``.
        blocks: number of blocks of each stack; the last number stands for all further stacks.
    """
    stacks = LINEAR_LAYERS.get(architecture, ())
    counts = [*blocks, *blocks[-1:]][: len(stacks)]
    return [name.format(i) for stack, n in zip(stacks, counts, strict=True) for i in range(n) for name in stack]


def last_feed_forward(architecture: str, blocks: int) -> tuple[str, str] | None:
    """Return the names of the first and the second layer of the last feed-forward network of a model of one stack.

    None if the architecture is not known, or has two stacks.
    """
    if len(LINEAR_LAYERS.get(architecture, ())) != 1:
        return None
    first, second = layer_names(architecture, blocks)[-2:]
    return first, second


def layer_names_of(model: ScratchSettings | Path) -> list[str]:
    """Return the layer names of a model that is to be made, or that lies in a directory; empty if not known."""
    if isinstance(model, ScratchSettings):
        return layer_names(model.architecture, model.layers)
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        names = layer_names(config["model_type"], *blocks_of(config))
        gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []  # Loading the model will say what is wrong with it.
    if config["model_type"] == "t5" and not gated:
        return [name.replace("wi_0", "wi") for name in names if not name.endswith("wi_1")]
    return names


def text_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings for language in a ``config.json``: nested in a model that reads more than text."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def blocks_of(config: Mapping[str, Any]) -> list[int]:
    """Return the number of blocks of each stack, as the architectures call it in their configurations."""
    keys = ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers"), ("num_decoder_layers", "decoder_layers")
    found = [first_of(config, *stack) for stack in keys]
    return [number for number in found if number is not None]


def shape_of(directory: Path) -> Shape | None:
    """Return the size of the model in a directory; None if it is not known."""
    try:
        config = text_settings(json.loads((directory / "config.json").read_text(encoding="utf-8")))
        hidden = first_of(config, "hidden_size", "n_embd", "d_model")
        ffn = first_of(config, "intermediate_size", "n_inner", "d_ff", "encoder_ffn_dim") or 4 * hidden
        gated = str(config.get("feed_forward_proj", "")).startswith("gated")
        return Shape(blocks_of(config)[0], hidden, ffn, config["vocab_size"], gated)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        return None


def first_of(config: Mapping[str, Any], *keys: str) -> Any:
    """Return the first value that a configuration has under one of several names; None if it has none."""
    return next((config[key] for key in keys if config.get(key) is not None), None)
