"""Editing in rounds: T groups of m edits, one after the other, into the same weights ("lifelong" editing).

The editor of round t sees the model that the rounds before have edited, W_{t-1} = W_0 + S_1 + ... + S_{t-1}. The sum of
the shifts is kept in float32 (or 64) and is added to the original weights W_0 in each round, so that a model in
bfloat16 is rounded once and does not drift; the original model is in memory once.

What an editor remembers of earlier rounds is its own business (:class:`malmen.editing.editor.Remembering`). One round
of an editor that remembers nothing is editing at once, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from malmen.editing.editor import Editor, Remembering
from malmen.editing.layers import PostEditWeights
from malmen.errors import DivergedError
from malmen.models.language_model import Example, LanguageModel

TOTAL, MEMORY = "total.", "memory."
"""What the names of a state's tensors begin with: the sums of the shifts, and what the editor remembers."""


class EditedInRounds:
    """A model under way through its rounds.

    Args:
        model: the language model, unedited.
        editor: makes each round's shifts.

    Attributes:
        n_made: the number of rounds made.
        totals: by layer the sum of the shifts of all rounds, (d_in, d_out), in float32 (or 64).
    """

    def __init__(self, model: LanguageModel, editor: Editor) -> None:
        self.model, self.editor = model, editor
        self.n_made = 0
        self.totals: dict[str, Tensor] = {}

    def edit(self, edits: Sequence[Example]) -> None:
        """Make a round.

        Args:
            edits: encoded by :func:`malmen.editing.training.encode_edits`, m of them.

        Raises:
            DivergedError: if a shift or a weight is not finite. The rounds before stay as they are.
        """
        with self.applied():
            shifts = self.editor.shifts(self.model, edits)
        totals = self.added(shifts)
        self.check(totals)
        self.totals = totals
        if isinstance(self.editor, Remembering):
            with self.applied():
                self.editor.end_round(self.model, edits)
        self.n_made += 1

    def added(self, shifts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the totals with a round's shifts, (d_in, d_out) by layer, added in float32 at least."""
        wide = {name: shift.to(torch.promote_types(shift.dtype, torch.float32)) for name, shift in shifts.items()}
        # Restored totals lie where the layers do; a hyper-network, and so its shifts, may lie on another device.
        return {
            name: self.totals[name].to(shift.device) + shift if self.totals else shift for name, shift in wide.items()
        }

    def check(self, totals: Mapping[str, Tensor]) -> None:
        """Raise :class:`DivergedError` if a layer's total, (d_in, d_out), is not finite in the model's precision."""
        for layer in self.editor.layers:
            if not totals[layer.name].to(layer.weight.dtype).isfinite().all():
                raise DivergedError(f"the sum of the shifts of layer {layer.name} is not finite")

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the ``with`` block, the model runs with all rounds so far."""
        if not self.totals:
            yield
            return
        with PostEditWeights(self.editor.layers, self.totals).applied() as weights:
            for weight in weights:  # The next round's editor looks at outputs, not at these weights' gradients.
                weight.requires_grad_(False)
            yield

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors that rounds change."""
        memory = self.editor.memory() if isinstance(self.editor, Remembering) else {}
        totals = {f"{TOTAL}{name}": total.cpu().clone() for name, total in self.totals.items()}
        return totals | {f"{MEMORY}{name}": tensor for name, tensor in memory.items()}

    def restore(self, tensors: Mapping[str, Tensor], n_made: int) -> None:
        """Go on after ``n_made`` rounds with what :meth:`tensors` returned."""
        devices = {layer.name: layer.weight.device for layer in self.editor.layers}
        self.n_made = n_made
        self.totals = {
            name.removeprefix(TOTAL): tensor.to(devices[name.removeprefix(TOTAL)])
            for name, tensor in tensors.items()
            if name.startswith(TOTAL)
        }
        if isinstance(self.editor, Remembering):
            self.editor.restore({n.removeprefix(MEMORY): t for n, t in tensors.items() if n.startswith(MEMORY)})
