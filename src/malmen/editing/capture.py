"""Keys and value gradients of the edit tuples (first half of Algorithm 1; spec: what is cached)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from malmen.editing.layers import EditedLayer
from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.settings import Tokens


@dataclass(frozen=True)
class Captured:
    """What one edited layer saw of the edit tuples.

    Attributes:
        keys: U, the layer's inputs u_j as rows, (n, d_in).
        gradients: the gradients of the fine-tuning loss to the layer's outputs v_j as rows, (n, d_out).
    """

    keys: Tensor
    gradients: Tensor

    def to(self, device: torch.device) -> "Captured":
        """Return the same on a device."""
        return Captured(self.keys.to(device), self.gradients.to(device))


def capture(
    model: LanguageModel, layers: Sequence[EditedLayer], edits: Sequence[Example], tokens: Tokens, batch_size: int
) -> dict[str, Captured]:
    """Run the edit tuples forward and backward, and return keys and value gradients of each layer in float32 (or 64).

    The loss is the sum over virtual batches of the mean negative log-likelihood, whatever the physical
    ``batch_size``. No weight gradient is computed: the backward pass starts at the loss and ends at the first edited
    layer's output.
    """
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in layers}
    for batch in model.batches(edits, batch_size):
        for name, part in capture_batch(model, layers, batch, tokens).items():
            parts[name].append(part)
    return {name: Captured(*(torch.cat(column) for column in zip(*part, strict=True))) for name, part in parts.items()}


def capture_batch(
    model: LanguageModel, layers: Sequence[EditedLayer], batch: Batch, tokens: Tokens
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by layer the keys and value gradients of one batch at the cached positions."""
    with torch.enable_grad(), recording(layers) as seen:
        loss = model.loss(batch)
        gradients = torch.autograd.grad(loss, [seen[layer.name][1] for layer in layers])
    captured = {}
    for layer, gradient in zip(layers, gradients, strict=True):
        rows = cached_rows(model, layer, batch, tokens)
        captured[layer.name] = at_rows(seen[layer.name][0], rows), at_rows(gradient, rows)
    return captured


def cached_rows(model: LanguageModel, layer: EditedLayer, batch: Batch, tokens: Tokens) -> Tensor:
    """Return which of the B*T positions of a layer's stack are cached.

    In an encoder-decoder these are all attended ones whatever ``tokens`` says, as in the paper's public code: of the
    encoder's positions none outputs an answer.
    """
    if model.two_stacks:
        return batch.attended_rows(model.in_decoder(layer.module))
    return batch.answer_rows if tokens == "answer" else batch.attended_rows()


def at_rows(hidden: Tensor, rows: Tensor) -> Tensor:
    """Pick rows of a (B, T, d) tensor by their index among the B*T positions; float32 at least."""
    picked = hidden.detach().flatten(0, 1)[rows.to(hidden.device)]
    return picked.to(torch.promote_types(picked.dtype, torch.float32))


@contextmanager
def recording(layers: Sequence[EditedLayer]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While active, note each layer's input and output, and make the outputs part of the autograd graph."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_for(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # All parameters are frozen, so the first edited layer's output is where the graph begins.
            output = output if output.requires_grad else output.requires_grad_()
            seen[name] = (inputs[0], output)
            return output

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.module.register_forward_hook(hook_for(layer.name)))
        yield seen
