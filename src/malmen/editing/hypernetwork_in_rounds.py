"""MALMEN and MEND in rounds: what becomes of their normalisers, and which keys they remember.

The paper edits once; its validation leaves the trained editor as it is, and so does :class:`HyperNetworkEditor`. The
later papers apply a trained network round after round, and their code lets its normaliser run on over the edits.
:class:`HyperNetworkInRounds` offers that, and a memory of keys, which is new for MALMEN: with C_p the sum of K^T K over
the rounds before,

    S = (K^T K + C_p + lambda I)^-1 K^T D,

so that a round's shift moves the values of earlier edits as little as it can. :class:`RetrainedInRounds` is MALMEN as
its authors meant it to be used: trained on the model that it edits, so again before a round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from malmen.editing.aggregation import inner_product
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor, LayerSlot
from malmen.editing.training import update_normalisers
from malmen.errors import DivergedError
from malmen.models.batch_sizes import ROWS_AT_ONCE
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.ranks import ranks

KEYS = "keys."
"""What the names of remembered sums of keys begin with."""


@dataclass
class HyperNetworkInRounds:
    """A trained editor that learns from each round before the next.

    Attributes:
        trained: the trained editor; its normalisers change if they run on.
        running: whether the normalisers take each round's rows in before its shifts are computed.
        remembers_keys: whether C_p joins the normal equation.
        key_sums: by layer C_p, (d_in, d_in), in float64.
    """

    trained: HyperNetworkEditor
    running: bool
    remembers_keys: bool
    key_sums: dict[str, Tensor] = field(default_factory=dict)
    _captured: dict[str, KeysAndGradients] | None = field(default=None, repr=False)

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""
        return self.trained.layers

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer the shift S, (d_in, d_out), of a round.

        Raises:
            DivergedError: if a key or gradient is not finite, a normal equation is singular, or a shift is not finite.
        """
        editor = self.trained
        return self.aggregate(capture(model, editor.layers, editor.weighted(edits), editor.settings, editor.device))

    def aggregate(self, captured: dict[str, KeysAndGradients]) -> dict[str, Tensor]:
        """Return the same for keys (n, d_in) and value gradients (n, d_out) of a round's edits, by layer."""
        editor = self.trained
        if self.running:
            update_normalisers(editor, captured)
        self._captured = captured if self.remembers_keys else None
        if not self.key_sums:
            return editor.aggregate(captured)
        return {slot.layer.name: self.shift(slot, captured[slot.layer.name]) for slot in editor.slots}

    @torch.no_grad()
    def shift(self, slot: LayerSlot, captured: KeysAndGradients) -> Tensor:
        """Return S = (K^T K + C_p + lambda I)^-1 K^T D of a layer, (d_in, d_out); solved in float64.

        Raises:
            DivergedError: if the system is singular, or the shift is not finite.
        """
        editor, name = self.trained, slot.layer.name
        with ranks().together():
            projected = editor.summed(
                slot, captured, lambda rows: rows.keys.T @ editor.differences_of(slot, rows)
            )  # K^T D, (d_in, d_out)
        projected = ranks().sum(projected)
        system = self.key_sums[name] + gram(captured)  # (d_in, d_in)
        if editor.settings.regularised:
            system.diagonal().add_(editor.network(slot).regularisation(slot.index).double())
        factor, failed_at = torch.linalg.cholesky_ex(system)
        if failed_at.item():
            raise DivergedError(f"the normal equation of layer {name} is singular")
        shift: Tensor = torch.cholesky_solve(projected.to(factor), factor).to(projected.dtype)
        shift = ranks().from_owner(shift, 0)
        if not shift.isfinite().all():
            raise DivergedError(f"the shift of layer {name} is not finite")
        return shift

    def end_round(self, _model: LanguageModel, _edits: Sequence[Example]) -> None:
        """Add the round's keys, as they were before its shifts, to C_p."""
        if self._captured is None:
            return
        for name, captured in self._captured.items():
            added = gram(captured)  # (d_in, d_in)
            self.key_sums[name] = self.key_sums[name] + added if name in self.key_sums else added
        self._captured = None

    def memory(self) -> dict[str, Tensor]:
        """Return copies of the normalisers' statistics, if they run on, and of C_p."""
        statistics = self.statistics() if self.running else {}
        return {name: tensor.detach().cpu().clone() for name, tensor in statistics.items()} | {
            f"{KEYS}{name}": sums.cpu().clone() for name, sums in self.key_sums.items()
        }

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`memory` returned."""
        device = self.trained.device
        for name, tensor in self.statistics().items() if self.running else ():
            tensor.copy_(memory[name])
        self.key_sums = {
            name.removeprefix(KEYS): sums.to(device) for name, sums in memory.items() if name.startswith(KEYS)
        }
        self._captured = None

    def statistics(self) -> dict[str, Tensor]:
        """Return the normalisers' statistics themselves, by name."""
        return {name: tensor for name, tensor in self.trained.networks.named_buffers() if ".normaliser." in name}


def gram(captured: KeysAndGradients) -> Tensor:
    """Return K^T K, (d_in, d_in), of the rows of all ranks, in float64."""
    pieces = ((piece.double(), piece.double()) for piece in captured.keys.split(ROWS_AT_ONCE))
    return ranks().sum(inner_product(pieces))


@dataclass
class RetrainedInRounds:
    """An editor whose network is trained anew, from scratch, on the model as it is, before some rounds.

    Attributes:
        trained: the editor that the first rounds use, trained on the unedited model.
        train: returns an editor that was trained on the model as it is.
        every: how many rounds an editor serves.
        n_made: the number of rounds made.
    """

    trained: HyperNetworkEditor
    train: Callable[[], HyperNetworkEditor]
    every: int
    n_made: int = 0

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""
        return self.trained.layers

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Train if it is time to, then return by layer the shift S, (d_in, d_out), of a round.

        Raises:
            DivergedError: if the training diverges, or as :meth:`HyperNetworkEditor.shifts` does.
        """
        if self.n_made and self.n_made % self.every == 0:
            self.trained = self.train()
        return self.trained.shifts(model, edits)

    def end_round(self, _model: LanguageModel, _edits: Sequence[Example]) -> None:
        """Count the round."""
        self.n_made += 1

    def memory(self) -> dict[str, Tensor]:
        """Return copies of the networks and the number of rounds."""
        networks = {name: tensor.detach().cpu().clone() for name, tensor in self.trained.networks.state_dict().items()}
        return networks | {"n_made": torch.tensor(self.n_made)}

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`memory` returned."""
        self.n_made = int(memory["n_made"])
        self.trained.networks.load_state_dict({name: t for name, t in memory.items() if name != "n_made"})
