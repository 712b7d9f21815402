"""The linear layers that are edited, and how a shift is applied to them and taken back."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from malmen.config.base import FfnPatterns
from malmen.config.edited_layers import EditedLayersSettings
from malmen.errors import UserError
from malmen.models.linear_layers import linear_layers, refused_weights
from malmen.runtime.text import counted

OTHER_PARTS = re.compile(
    r"att(n|ention)|mixer|mamba|ssm|rnn|lstm|recurrent|temporal|conv|delta|router|adapter|lora|laurel|per_layer|norm|(?<!shared_)experts",
    re.IGNORECASE,
)
"""In names of parts of a block that are no feed-forward network for every token, though some write hidden states."""

Shifts = Mapping[str, Tensor]
"""By layer name, the shift S of its weight W, always (d_in, d_out): a key u, (d_in,), gives the value u W, (d_out,)."""


@dataclass(frozen=True)
class EditedLayer:
    """A linear layer of the language model.

    Attributes:
        name: its name among the model's modules.
        module: ``nn.Linear``, which stores its weight as (d_out, d_in), or GPT-2's ``Conv1D``, as (d_in, d_out).
    """

    name: str
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The weight as it is stored: (d_out, d_in) in ``nn.Linear``, (d_in, d_out) in ``Conv1D``."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def orient(self, matrix: Tensor) -> Tensor:
        """Turn a (d_in, d_out) matrix into the stored orientation, or back: the same transposition does both."""
        return matrix.T if isinstance(self.module, nn.Linear) else matrix

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes of keys and values: (d_in, d_out)."""
        d_in, d_out = self.orient(self.weight).shape
        return d_in, d_out


def select_layers(module: nn.Module, pattern: str, last: int | None = None) -> list[EditedLayer]:
    r"""Return the linear layers whose whole name matches a regular expression, in the model's order.

    Args:
        module: the language model.
        pattern: a regular expression, such as ``transformer\.h\.\d+\.mlp\.c_proj``.
        last: how many of the last ones to keep; all if None.

    Raises:
        UserError: if the pattern names no layer of the model, or fewer than ``last``.
    """
    candidates = linear_layers(module)
    found = [EditedLayer(name, candidates[name]) for name in candidates if re.fullmatch(pattern, name)]
    for name, reason in refused_weights(module).items():
        if re.fullmatch(pattern, name):
            raise UserError(
                f"The pattern '{pattern}' names {name}, which cannot be edited: {reason}; choose other layers, "
                f"{others(module)}."
            )
    if len(found) < (last or 1):
        needed = "" if last is None else f" where last_blocks needs {last}"
        lower = f"lower last_blocks (--last-blocks) to {len(found)}; " if found else ""
        names = f"The pattern '{pattern}' names {counted(len(found), 'linear layer')} of the model{needed}"
        raise UserError(f"{names}; {lower}a pattern must match the whole name of a layer, {others(module)}.")
    return found[-last:] if last else found


def others(module: nn.Module) -> str:
    """Return for a message which layers to choose: a pattern for those of feed-forward networks, or the last names."""
    if proposed := feed_forward_patterns(module):
        return "such as " + " or ".join(f"'{pattern}'" for pattern in proposed)
    return f"such as {', '.join(list(linear_layers(module))[-4:])}"


def feed_forward_patterns(module: nn.Module) -> list[str]:
    """Return by stack of blocks a pattern that names the feed-forward networks' second layers, as far as names tell."""
    decoder = module.get_decoder() if isinstance(module, PreTrainedModel) else module
    inside = {id(part) for part in (decoder or module).modules()}
    stacks: dict[str, EditedLayer] = {}
    for name, layer in linear_layers(module).items():
        if id(layer) in inside and (place := feed_forward_place(name)):
            stacks[place[0]] = EditedLayer(name, layer)
    return as_patterns(stacks.values())


def as_patterns(layers: Iterable[EditedLayer]) -> list[str]:
    """Return patterns that name some layers, and those of the same name in other blocks."""
    patterns = (re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(layer.name), count=1) for layer in layers)
    return list(dict.fromkeys(patterns))


def feed_forward_place(name: str) -> tuple[str, int] | None:
    """Return the stack and the block of a layer that, by its name, may be of a feed-forward network; else None."""
    place = re.match(r"(.*?)\.(\d+)\.(.*)", name)
    if place is None or OTHER_PARTS.search(place[1].split(".")[-1]) or OTHER_PARTS.search(place[3]):
        return None
    return place[1], int(place[2])


def edited_layers(module: nn.Module, patterns: FfnPatterns, settings: EditedLayersSettings) -> list[EditedLayer]:
    """Return the layers that an editor edits, in the model's order.

    Raises:
        UserError: if the model has no such layers, or too few blocks.
    """
    chosen = {
        layer.name: layer
        for kind in settings.ffn_layers
        for pattern in patterns[kind]
        for layer in layers_of_stack(module, pattern, settings)
    }
    return [chosen[name] for name, _ in module.named_modules() if name in chosen]


def layers_of_stack(module: nn.Module, pattern: str, settings: EditedLayersSettings) -> list[EditedLayer]:
    """Return the layers of one stack of blocks that match the pattern and that an editor edits.

    Raises:
        UserError: if the model has no such layers, or too few blocks.
    """
    if settings.blocks is None:
        return select_layers(module, pattern, settings.last_blocks)
    layers = select_layers(module, pattern)
    if settings.blocks[-1] >= len(layers):
        raise UserError(
            f"{settings.label} edits block {settings.blocks[-1]}, but the model has {len(layers)} layers named like "
            f"'{pattern}', counted from 0; choose other blocks."
        )
    return [layers[block] for block in settings.blocks]


class PostEditWeights:
    """The weights W + S of the edited layers, computed once and put in place of W where asked.

    The original weights are kept, and no shift is subtracted again: they come back bit for bit, and changing between
    the pre-edit and the post-edit model costs nothing.

    Args:
        layers: the edited layers.
        shifts: the shift of each, (d_in, d_out), by name; added in its precision, then rounded to the weight's.
    """

    def __init__(self, layers: Sequence[EditedLayer], shifts: Shifts) -> None:
        self.layers = layers
        self.edited = [
            (layer.weight.data + layer.orient(shifts[layer.name]).to(layer.weight.device))
            .to(layer.weight.dtype)
            .contiguous()
            for layer in layers
        ]

    @contextmanager
    def applied(self) -> Iterator[list[nn.Parameter]]:
        """Inside the ``with`` block, the model runs post-edit; gives the edited weights, as stored, for gradients."""
        originals = [layer.weight.data for layer in self.layers]
        try:
            for layer, edited in zip(self.layers, self.edited, strict=True):
                layer.weight.data = edited
                layer.weight.requires_grad_(True)
            yield [layer.weight for layer in self.layers]
        finally:
            for layer, original in zip(self.layers, originals, strict=True):
                layer.weight.data = original
                layer.weight.requires_grad_(False)
