"""Keys and value gradients of the edits: the first half of Algorithm 1."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from malmen.config.base import Tokens
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.layers import EditedLayer
from malmen.editing.rows import Rows, RowStore
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, Example, LanguageModel


@dataclass(frozen=True)
class KeysAndGradients:
    """Keys and value gradients of the edits at one edited layer.

    Attributes:
        keys: U, the layer's inputs u_j as rows, (n, d_in).
        gradients: the gradients of the fine-tuning loss to the layer's outputs v_j as rows, (n, d_out).
    """

    keys: Rows
    gradients: Rows

    def write(self, start: int, keys: Tensor, gradients: Tensor, layer: str) -> int:
        """Write keys (k, d_in) and gradients (k, d_out) from row ``start`` on; return the row after the last one.

        Raises:
            DivergedError: if one of them is not finite; names the layer.
        """
        for what, rows in (("keys", keys), ("value gradients", gradients)):
            if not rows.isfinite().all():
                raise DivergedError(f"the {what} of layer {layer} are not finite")
        place = slice(start, start + len(keys))
        self.keys[place], self.gradients[place] = keys, gradients
        return place.stop


def capture(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    edits: Sequence[Example],
    settings: HyperNetworkSettings,
    device: torch.device | None = None,
) -> dict[str, KeysAndGradients]:
    """Run the edits forward and backward; return by layer their keys, (n, d_in), and value gradients, (n, d_out).

    The loss is the sum over virtual batches of the mean negative log-likelihood, whatever the physical batch size. No
    weight gradient is computed: the backward pass starts at the loss and ends at the first edited layer's output.

    Args:
        model: the language model, unedited.
        layers: the edited layers.
        edits: the edits, m of them.
        settings: which positions are captured, sequences run at once, and the bytes above which rows are kept in files.
        device: where the rows are used; the model's device if None. They are in float32 (or 64).

    Raises:
        UserError: if neither memory nor the disk holds the rows.
        DivergedError: if a key or gradient is not finite.
    """
    captured = empty_rows(model, layers, edits, settings, device or model.device)
    written = dict.fromkeys(captured, 0)

    def work(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return capture_batch(model, layers, batch, settings.tokens)

    for part in model.in_batches("keys and value gradients", edits, settings.batch_size, work):
        for name, (keys, gradients) in part.items():
            written[name] = captured[name].write(written[name], keys, gradients, name)
    return captured


def empty_rows(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    edits: Sequence[Example],
    settings: HyperNetworkSettings,
    device: torch.device,
) -> dict[str, KeysAndGradients]:
    """Return by layer empty keys, (n, d_in), and gradients, (n, d_out): in memory up to the settings' ``rows_bytes``.

    Raises:
        UserError: if they go to disk, which has too little space left.
    """
    counts = [count_rows(model, layer, edits, settings.tokens) for layer in layers]
    # The factor of the layer's normal equation, at most (d_in, d_in), is kept where the rows are.
    numbers = sum(n * sum(layer.shape) + min(n, layer.shape[0]) ** 2 for n, layer in zip(counts, layers, strict=True))
    dtype = torch.promote_types(model.module.dtype, torch.float32)
    store = RowStore.for_numbers(numbers, settings.rows_bytes, dtype, device)
    return {
        layer.name: KeysAndGradients(*(store.empty(n, width) for width in layer.shape))
        for n, layer in zip(counts, layers, strict=True)
    }


def count_rows(model: LanguageModel, layer: EditedLayer, edits: Sequence[Example], tokens: Tokens) -> int:
    """Return n: how many rows :func:`captured_rows` selects in all edits together."""
    if model.two_stacks:
        in_decoder = model.in_decoder(layer.module)
        return sum(len(edit.decoder_tokens if in_decoder else edit.tokens) for edit in edits)
    return sum(len(edit.answer_positions if tokens == "answer" else edit.tokens) for edit in edits)


def capture_batch(
    model: LanguageModel, layers: Sequence[EditedLayer], batch: Batch, tokens: Tokens
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by layer the keys, (n, d_in), and value gradients, (n, d_out), of one batch at the captured positions."""
    batch = model.after_prompts(batch) if tokens == "answer" else replace(batch, everywhere=True)
    with torch.enable_grad(), recording(layers) as seen:
        loss = model.loss(batch)
        gradients = torch.autograd.grad(loss, [seen[layer.name][1] for layer in layers])
    captured = {}
    for layer, gradient in zip(layers, gradients, strict=True):
        rows = captured_rows(model, layer, batch, tokens)  # (n,)
        captured[layer.name] = at_rows(seen[layer.name][0], rows), at_rows(gradient, rows)
    return captured


def captured_rows(model: LanguageModel, layer: EditedLayer, batch: Batch, tokens: Tokens) -> Tensor:
    """Return the indices of the captured positions among the B*T positions of a layer's stack, (n,).

    In an encoder-decoder these are all attended ones whatever ``tokens`` says, as in the paper's public code: no
    position of the encoder outputs an answer.
    """
    if model.two_stacks:
        return batch.attended_rows(model.in_decoder(layer.module))
    return batch.answer_rows if tokens == "answer" else batch.attended_rows()


def at_rows(hidden: Tensor, rows: Tensor) -> Tensor:
    """Return R of the B*T rows of a (B, T, d) tensor, (R, d), in float32 at least.

    A tensor of (R, d) was already computed at these rows only (:meth:`LanguageModel.last_feed_forward_at`).
    """
    picked = hidden.detach()
    if picked.dim() == 3:
        picked = picked.flatten(0, 1)[rows.to(picked.device)]
    return picked.to(torch.promote_types(picked.dtype, torch.float32))


@contextmanager
def recording(layers: Sequence[EditedLayer]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Inside the ``with`` block, record each layer's input, (..., d_in), and output, (..., d_out), by name.

    The outputs are part of the autograd graph.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str, _module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # All parameters are frozen, so the first edited layer's output is where the graph begins.
        output = output if output.requires_grad else output.requires_grad_()
        seen[name] = (inputs[0], output)
        return output

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.module.register_forward_hook(partial(hook, layer.name)))
        yield seen
