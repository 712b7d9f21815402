"""Keys and value gradients of the edits: the first half of Algorithm 1."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from malmen.config.base import BatchSize, Tokens
from malmen.editing.layers import EditedLayer
from malmen.editing.rows import Rows, RowStore
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Batch, Example, LanguageModel, shared
from malmen.runtime.ranks import ranks


class CaptureSettings(Protocol):
    """How keys and value gradients are captured: a part of the settings of every editor that does so."""

    @property
    def tokens(self) -> Tokens:
        """Which positions are captured."""

    @property
    def batch_size(self) -> BatchSize:
        """Sequences that run through the language model at once."""

    @property
    def rows_bytes(self) -> int | Literal["auto"]:
        """Bytes of rows and factors above which they are kept in files."""


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
    settings: CaptureSettings,
    device: torch.device | None = None,
) -> dict[str, KeysAndGradients]:
    """Run the edits forward and backward; return by layer their keys, (n, d_in), and value gradients, (n, d_out).

    On several ranks each runs its share of the edits, and has the n rows of these.

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
    edits = shared(edits)
    with ranks().together():
        captured = empty_rows(model, layers, edits, settings, device or model.device)
    written = dict.fromkeys(captured, 0)

    def work(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return capture_batch(model, layers, batch, settings.tokens)

    with ranks().together():
        for part in model.in_batches("keys and value gradients", edits, settings.batch_size, work):
            for name, (keys, gradients) in part.items():
                written[name] = captured[name].write(written[name], keys, gradients, name)
    return captured


def empty_rows(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    edits: Sequence[Example],
    settings: CaptureSettings,
    device: torch.device,
) -> dict[str, KeysAndGradients]:
    """Return by layer empty keys, (n, d_in), and gradients, (n, d_out): in memory up to the settings' ``rows_bytes``.

    Raises:
        UserError: if they go to disk, which has too little space left.
    """
    counts = [count_rows(model, layer, edits, settings.tokens) for layer in layers]
    dtype = torch.promote_types(model.module.dtype, torch.float32)
    # The factor of the layer's normal equation is kept where the rows are: (d_in, d_in), or (n, n) in float64.
    wide = torch.float64.itemsize // dtype.itemsize
    factors = [
        wide * n**2 if n < layer.shape[0] else layer.shape[0] ** 2 for n, layer in zip(counts, layers, strict=True)
    ]
    numbers = sum(factors) + sum(n * sum(layer.shape) for n, layer in zip(counts, layers, strict=True))
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
        place = Positions.of(model, layer, batch)
        keys = place.at_rows(seen[layer.name][0], rows)  # (n, d_in)
        captured[layer.name] = keys, place.at_rows(gradient, rows)
    return captured


def captured_rows(model: LanguageModel, layer: EditedLayer, batch: Batch, tokens: Tokens) -> Tensor:
    """Return the indices of the captured positions among the B*T positions of a layer's stack, (n,).

    In an encoder-decoder these are all attended ones whatever ``tokens`` says, as in the paper's public code: no
    position of the encoder outputs an answer.
    """
    if model.two_stacks:
        return batch.attended_rows(model.in_decoder(layer.module))
    return batch.answer_rows if tokens == "answer" else batch.attended_rows()


@dataclass(frozen=True)
class Positions:
    """The positions of a batch whose rows a layer computes, in the batch's order whatever the shape they come in.

    Attributes:
        name: of the layer or block, for messages.
        n: number of rows that the layer computes.
        computed: indices of these rows among the B*T positions, (n,); None if they are all of them.
    """

    name: str
    n: int
    computed: Tensor | None = None

    @classmethod
    def of(cls, model: LanguageModel, layer: EditedLayer, batch: Batch) -> "Positions":
        """Return the positions that a layer computes in :meth:`LanguageModel.answer_logits`."""
        if model.at_answers_only(layer.module, batch):
            return cls(layer.name, len(batch.answer_rows), batch.answer_rows)
        return cls.all(layer.name, batch, model.in_decoder(layer.module))

    @classmethod
    def all(cls, name: str, batch: Batch, in_decoder: bool = False) -> "Positions":
        """Return all B*T positions of the encoder (or the only stack), or those of the decoder."""
        return cls(name, batch.inputs["decoder_input_ids" if in_decoder else "input_ids"].numel())

    def at_rows(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Return R of the B*T rows of a hidden state, (R, d), in float32 at least.

        Args:
            hidden: what the layer reads or writes, (B, T, d) or (B*T, d), or (n, d) at the computed rows.
            rows: the indices of the wanted rows among the B*T positions, (R,).

        Raises:
            UserError: if the layer does not have one row for each position that it is to compute.
        """
        every = hidden.detach().reshape(-1, hidden.shape[-1])  # (n, d)
        if self.computed is not None and self.computed is not rows:
            raise UserError(f"{self.name} computes the positions of answers only; edit it with tokens: answer.")
        if len(every) != self.n:
            raise UserError(
                f"{self.name} computes {len(every)} rows of a batch where {self.n} positions are to be read, so that "
                "no row belongs to a known token (as in an expert that sees only some tokens); choose a layer that "
                "computes every token, such as a feed-forward layer outside of the experts."
            )
        picked = every if self.computed is rows else every[rows.to(every.device)]  # (R, d)
        return picked.to(torch.promote_types(picked.dtype, torch.float32))


class Recorded(dict[str, tuple[Tensor, Tensor]]):
    """By layer name its input, (..., d_in), and its output, (..., d_out), in one run of the model."""

    def __missing__(self, layer: str) -> tuple[Tensor, Tensor]:
        """Say that a layer did not run."""
        raise UserError(
            f"Layer {layer} did not run when the model read a text: it is an expert that sees only some tokens, or it "
            "belongs to another part (for images, for sound); choose a layer that computes every token."
        )


@contextmanager
def recording(layers: Sequence[EditedLayer]) -> Iterator[Recorded]:
    """Inside the ``with`` block, in which the model runs once, record each layer's input and output by name.

    The outputs are part of the autograd graph.

    Raises:
        UserError: if a layer runs more than once, or is asked for and has not run.
    """
    seen = Recorded()

    def hook(name: str, _module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if name in seen:
            raise UserError(
                f"Layer {name} runs more than once when the model reads a text, because several blocks share it, so "
                "that it has no single key for a token; choose a layer that runs once, or edit by fine-tuning."
            )
        # All parameters are frozen, so the first edited layer's output is where the graph begins.
        output = output if output.requires_grad else output.requires_grad_()
        seen[name] = (inputs[0], output)
        return output.clone()  # Some models overwrite it.

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.module.register_forward_hook(partial(hook, layer.name)))
        yield seen
