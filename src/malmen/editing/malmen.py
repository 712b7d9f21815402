"""MALMEN and MEND (separated): from edits to one shift per layer, and from a loss back to the hyper-network.

Algorithm 1, in each edited layer, for m edits that yield n rows (tokens):

    U, dL/dV  =  keys and value gradients of the edits, (n, d_in) and (n, d_out)              (editing/capture.py)
    D         =  value differences that the hyper-network asks for, (n, d_out)                (editing/hypernetwork.py)
    S         =  (U^T U + lambda I)^-1 U^T D, the one shift for all of them, (d_in, d_out)    (editing/aggregation.py)

MEND takes the sum of the rows' own shifts as S instead. Algorithm 2, given the gradient G = dL/dS of the edited model's
loss (editing/training.py), takes G to dL/dD and dL/dlambda by theorems 1 and 2, and from D on back-propagates through
the hyper-network. Rows pass through the hyper-network in batches (editing/row_batches.py); the language model and the
hyper-network never share a graph.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.aggregation import NormalEquation
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.hypernetwork import HyperNetwork
from malmen.editing.layers import EditedLayer, Shifts
from malmen.editing.row_batches import Result, RowBatch, add_gradients, first_size, in_row_batches, total
from malmen.editing.rows import Rows, whole
from malmen.errors import DivergedError
from malmen.models.batching import Size
from malmen.models.language_model import Example, LanguageModel, with_loss_weights


@dataclass(frozen=True)
class LayerSlot:
    """Where an edited layer finds its network: the key of its shape, and its number among the layers of that shape."""

    layer: EditedLayer
    network: str
    index: int


@dataclass(frozen=True)
class Solution:
    """One layer's shift, and what the backward pass needs again.

    Attributes:
        shift: S, (d_in, d_out).
        equation: the normal equation whose solution S is; None if the shift is a sum.
        differences: D, (n, d_out), where the equation needs it again (in its dual form) or it keeps its graph; else
            None, and only one batch of its rows exists at a time.
    """

    shift: Tensor
    equation: NormalEquation | None = None
    differences: Tensor | None = None

    @property
    def dual_keys(self) -> Tensor | None:
        """K, (n, d_in), where the backward pass needs only K dL/dS and few rows make that cheaper than dL/dS."""
        if self.equation is None or not self.equation.dual:
            return None
        d_in, d_out = self.shift.shape
        return whole(self.equation.keys) if len(self.equation.keys) * (d_in + d_out) < d_in * d_out else None


@dataclass
class HyperNetworkEditor:
    """MALMEN, or MEND in the separated re-implementation, depending on ``settings.aggregation``.

    Attributes:
        layers: the edited layers.
        settings: how it refines and aggregates.
        networks: one hyper-network per weight shape, by "d_in x d_out".
        slots: where each layer finds its network.
        row_sizes: how many rows each network is given at once, by its name and the settings.
    """

    layers: Sequence[EditedLayer]
    settings: HyperNetworkSettings
    networks: nn.ModuleDict
    slots: list[LayerSlot] = field(default_factory=list)
    row_sizes: dict[tuple[str, HyperNetworkSettings], Size] = field(default_factory=dict)

    @classmethod
    def create(cls, layers: Sequence[EditedLayer], settings: HyperNetworkSettings, seed: int) -> "HyperNetworkEditor":
        """Make an untrained editor with initial values drawn from ``seed``, on its own device or else the layers'."""
        counts: dict[tuple[int, int], int] = {}
        slots = []
        for layer in layers:
            d_in, d_out = layer.shape
            index = counts.get(layer.shape, 0)
            slots.append(LayerSlot(layer, f"{d_in}x{d_out}", index))
            counts[layer.shape] = index + 1
        generator = torch.Generator().manual_seed(seed)
        networks = nn.ModuleDict(
            {
                f"{d_in}x{d_out}": HyperNetwork(
                    d_in,
                    d_out,
                    n_layers=n_layers,
                    rank=settings.rank,
                    n_blocks=settings.blocks,
                    learning_rate=settings.learning_rate,
                    generator=generator,
                )
                for (d_in, d_out), n_layers in counts.items()
            }
        )
        return cls(layers, settings, networks.to(settings.device or layers[0].weight.device), slots)

    @property
    def device(self) -> torch.device:
        """The device of the networks, cached rows, linear systems and shifts."""
        return next(self.networks.parameters()).device

    def network(self, slot: LayerSlot) -> HyperNetwork:
        """Return the hyper-network of a layer."""
        network = self.networks[slot.network]
        assert isinstance(network, HyperNetwork)
        return network

    # Algorithm 1: from edits to shifts.

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer the shift S, (d_in, d_out), that makes a group of edits (Algorithm 1).

        Raises:
            DivergedError: if a key or gradient is not finite, a normal equation is singular, or a shift is not finite.
        """
        return self.aggregate(capture(model, self.layers, self.weighted(edits), self.settings, self.device))

    def weighted(self, examples: Sequence[Example]) -> list[Example]:
        """Give each example of a group the loss weight of its virtual batch, as the settings divide the group."""
        return with_loss_weights(examples, self.settings.virtual_batches)

    def aggregate(self, captured: dict[str, KeysAndGradients]) -> dict[str, Tensor]:
        """Return by layer the shift S, (d_in, d_out), for keys (n, d_in) and value gradients (n, d_out) of its edits.

        Raises:
            DivergedError: if a normal equation is singular or a shift is not finite.
        """
        return {slot.layer.name: self.solve_layer(slot, captured[slot.layer.name]).shift for slot in self.slots}

    def solve(self, captured: dict[str, KeysAndGradients], for_backward: bool = False) -> dict[str, Solution]:
        """Return by layer the shift S, (d_in, d_out), and what the backward pass needs again.

        Args:
            captured: keys (n, d_in) and value gradients (n, d_out) of each layer.
            for_backward: whether :meth:`backward` follows. It then keeps the graphs of the value differences of as many
                layers as the settings' ``graph_bytes`` allow, so that these layers' rows pass through the networks
                only once.

        Raises:
            DivergedError: if a normal equation is singular or a shift is not finite.
        """
        left = self.settings.graph_bytes if for_backward else 0
        solutions = {}
        for slot in self.slots:
            rows = captured[slot.layer.name]
            needed = self.network(slot).graph_bytes(len(rows.keys))
            solutions[slot.layer.name] = self.solve_layer(slot, rows, keep_graph=needed <= left)
            left -= needed if needed <= left else 0
        return solutions

    def solve_layer(self, slot: LayerSlot, captured: KeysAndGradients, keep_graph: bool = False) -> Solution:
        """Return one layer's shift S, (d_in, d_out), and for MALMEN its factorised system."""
        if self.settings.aggregation == "sum":
            solution = Solution(self.summed_shift(slot, captured))
        else:
            equation = self.equation(slot, captured.keys)
            if keep_graph or equation.dual:
                with torch.set_grad_enabled(keep_graph):
                    pieces = self.in_rows(slot, captured, lambda rows: self.differences_of(slot, rows))
                    differences = torch.cat(list(pieces))  # (n, d_out)
                solution = Solution(equation.shift(differences.detach()), equation, differences)
            else:
                with torch.no_grad():  # K^T D, (d_in, d_out), without ever holding all of D, (n, d_out)
                    pieces = self.in_rows(slot, captured, lambda rows: rows.keys.T @ self.differences_of(slot, rows))
                    projected = total(pieces)
                solution = Solution(equation.solve(projected), equation)
        if not solution.shift.isfinite().all():
            raise DivergedError(f"the shift of layer {slot.layer.name} is not finite")
        return solution

    def equation(self, slot: LayerSlot, keys: Rows) -> NormalEquation:
        """Factorise a layer's normal equation for its keys (n, d_in); lambda is 0 in an unregularised editor."""
        regularisation = (
            float(self.network(slot).regularisation(slot.index).detach()) if self.settings.regularised else 0.0
        )
        return NormalEquation.of_layer(slot.layer.name, keys, regularisation)

    @torch.no_grad()
    def summed_shift(self, slot: LayerSlot, captured: KeysAndGradients) -> Tensor:
        """Return the sum of the shifts of a layer's single rows, (d_in, d_out)."""
        network = self.network(slot)
        return total(
            self.in_rows(slot, captured, lambda rows: network.summed_shift(rows.keys, rows.gradients, slot.index))
        )

    def differences_of(self, slot: LayerSlot, rows: RowBatch) -> Tensor:
        """Return the value differences of k rows of a layer, (k, d_out)."""
        differences: Tensor = self.network(slot).value_differences(rows.keys, rows.gradients, slot.index)
        return differences

    # Algorithm 2: from a loss's gradient to the shifts back to the hyper-network.

    def backward(
        self, captured: dict[str, KeysAndGradients], solved: dict[str, Solution], gradients: dict[str, Tensor]
    ) -> None:
        """Add the gradient of a loss to the networks' ``grad``, given its gradient to the shifts (Algorithm 2).

        Args:
            captured: keys (n, d_in) and value gradients (n, d_out) of each layer.
            solved: what :meth:`solve` returned for them.
            gradients: by layer G = dL/dS, (d_in, d_out); K G, (n, d_out), where its solution has ``dual_keys``.
        """
        for slot in self.slots:
            name = slot.layer.name
            self.backward_layer(slot, captured[name], solved[name], gradients[name].to(self.device))

    def backward_layer(self, slot: LayerSlot, captured: KeysAndGradients, solved: Solution, gradient: Tensor) -> None:
        """Back-propagate through one layer's network, along the kept graph or by running the rows again.

        ``gradient`` is as in :meth:`backward`, (d_in, d_out) or (n, d_out).
        """
        network, differences = self.network(slot), solved.differences
        if solved.equation is None:  # dL/d(pseudo keys, pseudo gradients) of S = sum_j S_j, by autograd
            self.add_gradients(
                slot,
                captured,
                lambda rows: (network.summed_shift(rows.keys, rows.gradients, slot.index), gradient),
            )
            return
        with torch.no_grad():  # theorems 1 and 2: (n, d_out) and a scalar
            to_differences, to_regularisation = solved.equation.backward(
                gradient, solved.shift, differences, projected=solved.dual_keys is not None
            )
        if self.settings.regularised:
            network.regularisation(slot.index).backward(to_regularisation)
        if differences is not None and differences.requires_grad:
            differences.backward(to_differences[:])
            return
        self.add_gradients(slot, captured, lambda rows: (self.differences_of(slot, rows), to_differences[rows.place]))

    def add_gradients(
        self, slot: LayerSlot, captured: KeysAndGradients, outputs: Callable[[RowBatch], tuple[Tensor, Tensor]]
    ) -> None:
        """Add a loss's gradient to the ``grad`` of a layer's network, one batch of rows after the other.

        Args:
            slot: the layer.
            captured: its rows.
            outputs: returns for a batch of rows what the network makes of them, and the loss's gradient to that, of the
                same shape.
        """
        parameters = list(self.network(slot).parameters())

        def gradients_of(rows: RowBatch) -> Sequence[Tensor | None]:
            output, to_output = outputs(rows)
            return torch.autograd.grad(output, parameters, to_output, allow_unused=True)

        for gradients in self.in_rows(slot, captured, gradients_of):
            add_gradients(parameters, gradients)

    # How well one shift serves all rows (section 5.2), and how rows are batched.

    @torch.no_grad()
    def residuals(self, captured: dict[str, KeysAndGradients], shifts: Shifts) -> Tensor:
        """Return ||S u_j - d_j|| / ||d_j|| of the rows of all layers in one tensor, (rows,) (section 5.2, Figure 8).

        It is the relative difference between the effects of the aggregated shift and of the token's own shift. Rows
        with d_j = 0 are left out.
        """

        def ratios(slot: LayerSlot, rows: RowBatch) -> Tensor:
            differences = self.differences_of(slot, rows)  # (k, d_out)
            missed = (rows.keys @ shifts[slot.layer.name] - differences).norm(dim=1)  # (k,)
            asked = differences.norm(dim=1)  # (k,)
            relative: Tensor = missed[asked > 0] / asked[asked > 0]
            return relative

        return torch.cat(
            [
                part
                for slot in self.slots
                for part in self.in_rows(slot, captured[slot.layer.name], partial(ratios, slot))
            ]
        )

    def in_rows(
        self, slot: LayerSlot, captured: KeysAndGradients, work: Callable[[RowBatch], Result]
    ) -> Iterator[Result]:
        """Yield what ``work`` returns for batches of a layer's rows, in their order."""
        network = self.network(slot)
        new = first_size(self.settings, network.graph_bytes(1), slot.layer.weight.device)
        size = self.row_sizes.setdefault((slot.network, self.settings), new)
        return in_row_batches(captured, size, slot.layer.name, work)
