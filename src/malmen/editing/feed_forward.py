"""The second layers of a model's feed-forward networks, found where nobody names them."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from malmen.editing.layers import EditedLayer, feed_forward_place, select_layers
from malmen.editing.probe import probe_batch
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers, refused_weights


def choose_layers(model: LanguageModel, patterns: Sequence[str], last_blocks: int) -> list[EditedLayer]:
    """Return the last layers that each pattern names; without patterns, those of :func:`second_layers`.

    Raises:
        UserError: if a pattern names fewer than ``last_blocks`` layers, or the model has no such layers.
    """
    if patterns:
        found = [layer for pattern in patterns for layer in select_layers(model.module, pattern, last_blocks)]
    else:
        found = [layer for stack in second_layers(model) for layer in stack[-last_blocks:]]
    return list({layer.name: layer for layer in found}.values())


def second_layers(model: LanguageModel) -> list[list[EditedLayer]]:
    """Return, for each stack of blocks, the second layer of the feed-forward network of every block that has one.

    It is the last linear layer of a block, outside of attention and its likes, that writes a hidden state for every
    token; one run on a short text shows that.

    Raises:
        UserError: if no block has one.
    """
    rows, width = rows_computed(model), getattr(model.text_config, "hidden_size", None)
    blocks: dict[tuple[str, int], EditedLayer] = {}
    for name, module in linear_layers(model.module).items():
        layer, place = EditedLayer(name, module), feed_forward_place(name)
        if place and rows.get(name) and layer.shape[1] == (width or layer.shape[1]):
            blocks[place] = layer
    stacks: dict[str, list[EditedLayer]] = {}
    for (stack, _), layer in blocks.items():
        stacks.setdefault(stack, []).append(layer)
    if not stacks:
        raise UserError(
            "No feed-forward network of the model writes a hidden state for every token in a layer that can be edited"
            f"{why(model.module)}; name other layers by their whole names: the last ones that every token passes are "
            f"{', '.join([name for name in rows if rows[name]][-3:])}."
        )
    return list(stacks.values())


def first_layers(model: LanguageModel) -> list[EditedLayer]:
    """Return the first layer of the feed-forward network of every block, as far as shapes and names tell.

    It is the first linear layer of a block, outside of attention and its likes, that reads a hidden state of every
    token and is not the second layer: of a gated network its gate.
    """
    rows, second = rows_computed(model), {layer.name for stack in second_layers(model) for layer in stack}
    blocks: dict[tuple[str, int], EditedLayer] = {}
    for name, module in linear_layers(model.module).items():
        layer, place = EditedLayer(name, module), feed_forward_place(name)
        if place and rows.get(name) and name not in second and layer.shape[0] < layer.shape[1]:
            blocks.setdefault(place, layer)
    return list(blocks.values())


def why(module: nn.Module) -> str:
    """Return for a message why the last weight of the last block that cannot be edited is such a one, if any is."""
    refused = [(name, reason) for name, reason in refused_weights(module).items() if re.search(r"\.\d+\.", name)]
    return " ({}: {})".format(*refused[-1]) if refused else ""


@torch.no_grad()
def rows_computed(model: LanguageModel) -> dict[str, bool]:
    """Return by name, for each linear layer that reads a short text, whether it runs once and for every token."""
    batch = probe_batch(model)
    every = {batch.mask(in_decoder).numel() for in_decoder in (False, model.two_stacks)}
    rows: dict[str, bool] = {}

    def hook_for(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows[name] = name not in rows and inputs[0][..., 0].numel() in every

        return hook

    with ExitStack() as stack:
        for name, layer in linear_layers(model.module).items():
            stack.enter_context(layer.register_forward_pre_hook(hook_for(name)))
        model.module(**batch.inputs, use_cache=False)
    return rows
