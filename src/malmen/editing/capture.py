"""Keys and value gradients of the edit tuples (first half of Algorithm 1; spec: what is cached)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from malmen.config.base import BatchSize, Tokens
from malmen.editing.layers import EditedLayer
from malmen.editing.rows import Rows, RowStore
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, Example, LanguageModel


@dataclass(frozen=True)
class KeysAndGradients:
    """What one edited layer saw of the edit tuples.

    Attributes:
        keys: U, the layer's inputs u_j as rows, (n, d_in).
        gradients: the gradients of the fine-tuning loss to the layer's outputs v_j as rows, (n, d_out).
    """

    keys: Rows
    gradients: Rows

    def write(self, start: int, keys: Tensor, gradients: Tensor, layer: str) -> int:
        """Write rows from ``start`` on, and return where the next ones begin.

        Raises:
            DivergedError: if one of them is not finite; it names the layer.
        """
        for what, rows in (("keys", keys), ("value gradients", gradients)):
            if not rows.isfinite().all():
                raise DivergedError(f"the {what} of layer {layer} are not finite")
        place = slice(start, start + len(keys))
        self.keys[place], self.gradients[place] = keys, gradients
        return place.stop

    def row_batch(self, rows: Sequence[int]) -> "RowBatch":
        """Return consecutive rows."""
        place = slice(rows[0], rows[-1] + 1)
        return RowBatch(self.keys[place], self.gradients[place], place)


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of what one layer saw.

    Attributes:
        keys: (k, d_in).
        gradients: (k, d_out).
        place: which rows they are.
    """

    keys: Tensor
    gradients: Tensor
    place: slice


def capture(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    edits: Sequence[Example],
    tokens: Tokens,
    batch_size: BatchSize = "auto",
    rows_bytes: int | Literal["auto"] = "auto",
    device: torch.device | None = None,
) -> dict[str, KeysAndGradients]:
    """Run the edit tuples forward and backward, and return keys and value gradients of each layer in float32 (or 64).

    The loss is the sum over virtual batches of the mean negative log-likelihood, whatever the physical
    ``batch_size``. No weight gradient is computed: the backward pass starts at the loss and ends at the first edited
    layer's output. What takes more than ``rows_bytes`` in all is kept in files; it is given on ``device``, or else the
    model's.

    Raises:
        UserError: if neither memory nor the disk holds what is needed.
        DivergedError: if a key or gradient is not finite.
    """
    captured = empty_rows(model, layers, edits, tokens, rows_bytes, device or model.device)
    written = dict.fromkeys(captured, 0)
    for part in model.in_batches(
        "capture", edits, batch_size, lambda batch: capture_batch(model, layers, batch, tokens)
    ):
        for name, (keys, gradients) in part.items():
            written[name] = captured[name].write(written[name], keys, gradients, name)
    return captured


def empty_rows(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    edits: Sequence[Example],
    tokens: Tokens,
    rows_bytes: int | Literal["auto"],
    device: torch.device,
) -> dict[str, KeysAndGradients]:
    """Return matrices of the right size for what is cached of the edits, in memory up to ``rows_bytes`` in all."""
    counts = [count_rows(model, layer, edits, tokens) for layer in layers]
    # The factor of the layer's normal equation is kept where the rows are.
    numbers = sum(n * sum(layer.shape) + min(n, layer.shape[0]) ** 2 for n, layer in zip(counts, layers, strict=True))
    dtype = torch.promote_types(model.module.dtype, torch.float32)
    store = RowStore.for_numbers(numbers, rows_bytes, dtype, device)
    return {
        layer.name: KeysAndGradients(*(store.empty(n, width) for width in layer.shape))
        for n, layer in zip(counts, layers, strict=True)
    }


def count_rows(model: LanguageModel, layer: EditedLayer, edits: Sequence[Example], tokens: Tokens) -> int:
    """Return how many rows :func:`cached_rows` gives for all edits together."""
    if model.two_stacks:
        in_decoder = model.in_decoder(layer.module)
        return sum(len(edit.decoder_tokens if in_decoder else edit.tokens) for edit in edits)
    return sum(len(edit.answer_positions if tokens == "answer" else edit.tokens) for edit in edits)


def capture_batch(
    model: LanguageModel, layers: Sequence[EditedLayer], batch: Batch, tokens: Tokens
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by layer the keys and value gradients of one batch at the cached positions."""
    batch = model.after_prompts(batch) if tokens == "answer" else replace(batch, everywhere=True)
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
    """Pick rows of a (B, T, d) tensor by their index among the B*T positions; float32 at least.

    What is (R, d) already was computed at these rows only (:meth:`LanguageModel.last_feed_forward_at`).
    """
    picked = hidden.detach()
    if picked.dim() == 3:
        picked = picked.flatten(0, 1)[rows.to(picked.device)]
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
