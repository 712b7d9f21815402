"""Names of the linear layers of known architectures, to check a configuration without loading a model."""

import json
from pathlib import Path

from malmen.settings import ScratchSettings

LINEAR_LAYERS = {
    "bert": (
        "bert.encoder.layer.{}.attention.self.query",
        "bert.encoder.layer.{}.attention.self.key",
        "bert.encoder.layer.{}.attention.self.value",
        "bert.encoder.layer.{}.attention.output.dense",
        "bert.encoder.layer.{}.intermediate.dense",
        "bert.encoder.layer.{}.output.dense",
    ),
    "gpt2": (
        "transformer.h.{}.attn.c_attn",
        "transformer.h.{}.attn.c_proj",
        "transformer.h.{}.mlp.c_fc",
        "transformer.h.{}.mlp.c_proj",
    ),
}
"""By architecture, the layers of one Transformer block; ``{}`` stands for the block's number."""


def layer_names(architecture: str, blocks: int) -> list[str]:
    """Return the names of all linear layers inside the blocks, in the model's order; empty if it is not known."""
    return [name.format(i) for i in range(blocks) for name in LINEAR_LAYERS.get(architecture, ())]


def layer_names_of(model: ScratchSettings | Path) -> list[str]:
    """Return the layer names of a model that is to be made, or that lies in a directory; empty if not known."""
    if isinstance(model, ScratchSettings):
        return layer_names(model.architecture, model.layers)
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        return layer_names(config["model_type"], config.get("num_hidden_layers", config.get("n_layer")))
    except (OSError, ValueError, KeyError, TypeError):
        return []  # Loading the model will say what is wrong with it.
