"""MALMEN and MEND (separated): from edits to one shift per layer, and from a loss back to the hyper-network.

Algorithm 1, in each edited layer, for m edits that yield n rows (tokens):

    U, dL/dV  =  keys and value gradients of the edits, (n, d_in) and (n, d_out)              (editing/capture.py)
    D         =  value differences that the hyper-network asks for, (n, d_out)                (editing/hypernetwork.py)
    S         =  (U^T U + lambda I)^-1 U^T D, the one shift for all of them, (d_in, d_out)    (editing/aggregation.py)

MEND takes the sum of the rows' own shifts as S instead. Algorithm 2, given the gradient G = dL/dS of the edited model's
loss (editing/training.py), takes G to dL/dD and dL/dlambda by theorems 1 and 2, and from D on back-propagates through
the hyper-network. Rows pass through the hyper-network in batches (editing/row_batches.py); the language model and the
hyper-network never share a graph.

On several ranks, each has the rows of its own edits, of n in all; the layers' systems are divided among the ranks
(editing/shared_equation.py), and the gradients to the hyper-network are added at the end.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.aggregation import Product, inner_product
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.hypernetwork import HyperNetwork
from malmen.editing.layers import EditedLayer, Shifts
from malmen.editing.row_batches import Result, RowBatch, add_gradients, first_size, in_row_batches, total
from malmen.editing.rows import whole
from malmen.editing.shared_equation import SharedEquation
from malmen.errors import DivergedError
from malmen.models.batch_sizes import ROWS_AT_ONCE
from malmen.models.batching import Size
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.runtime.ranks import ranks


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
        differences: D of this rank's rows, (n, d_out), if it keeps its graph; else None.
    """

    shift: Tensor
    equation: SharedEquation | None = None
    differences: Tensor | None = None

    @property
    def dual_keys(self) -> Tensor | None:
        """K, (n, d_in), where the backward pass needs only K dL/dS and few rows make that cheaper than dL/dS."""
        if self.equation is None or not self.equation.projects or self.equation.all_keys is None:
            return None
        return whole(self.equation.all_keys)


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
        return {name: solution.shift for name, solution in self.solutions(captured, with_graph=())}

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
        with_graph = set[str]()
        for slot in self.slots:
            needed = self.network(slot).graph_bytes(len(captured[slot.layer.name].keys))
            if needed <= left:
                with_graph.add(slot.layer.name)
                left -= needed
        return dict(self.solutions(captured, with_graph))

    def solutions(
        self, captured: dict[str, KeysAndGradients], with_graph: Container[str]
    ) -> Iterator[tuple[str, Solution]]:
        """Yield the names of layers and their solutions, as soon as they are known; as :meth:`solve`.

        Args:
            captured: as there.
            with_graph: the layers that keep the graph of their value differences.
        """
        if self.settings.aggregation == "sum":
            for slot in self.slots:
                yield slot.layer.name, Solution(self.summed_shift(slot, captured[slot.layer.name]))
            return
        for wave in ranks().waves(self.slots):
            yield from self.solve_wave(wave, captured, with_graph).items()

    def solve_wave(
        self, slots: Sequence[LayerSlot], captured: dict[str, KeysAndGradients], with_graph: Container[str]
    ) -> dict[str, Solution]:
        """Solve as many layers as there are ranks, each on another rank; those ``with_graph`` keep that of D."""
        here, rows = ranks(), [captured[slot.layer.name] for slot in slots]
        counts = here.counts(*(len(own.keys) for own in rows))
        equations = [self.equation(*parts) for parts in zip(slots, rows, counts, strict=True)]
        for equation in equations:  # One sum moves while the next is formed.
            equation.begin()
        with here.together():
            for equation in equations:
                equation.factorise()
        graphs = []
        for slot, own, equation in zip(slots, rows, equations, strict=True):
            right, graph = self.right_hand_side(slot, own, slot.layer.name in with_graph, bool(equation.dual))
            equation.take(right)
            graphs.append(graph)
        with here.together():
            for equation in equations:
                equation.solve()
        return {
            equation.layer: Solution(equation.shift(), equation, graph)
            for equation, graph in zip(equations, graphs, strict=True)
        }

    def equation(self, slot: LayerSlot, captured: KeysAndGradients, counts: Sequence[int]) -> SharedEquation:
        """Return a layer's normal equation, with ``counts`` rows on each rank; lambda is 0 if it is unregularised."""
        regularisation = (
            float(self.network(slot).regularisation(slot.index).detach()) if self.settings.regularised else 0.0
        )
        owner = ranks().owner(self.slots.index(slot))
        return SharedEquation(slot.layer.name, captured.keys, slot.layer.shape, regularisation, counts, owner)

    def right_hand_side(
        self, slot: LayerSlot, captured: KeysAndGradients, keep_graph: bool, dual: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return K^T D, (d_in, d_out), or, if ``dual``, D, (n, d_out), of a layer; and D with its graph if kept."""
        if not keep_graph and not dual:  # without ever holding all of D
            with torch.no_grad():
                projected = self.summed(slot, captured, lambda rows: rows.keys.T @ self.differences_of(slot, rows))
            return projected, None
        with torch.set_grad_enabled(keep_graph):
            pieces = list(self.in_rows(slot, captured, lambda rows: self.differences_of(slot, rows)))
            differences = torch.cat(pieces) if pieces else self.nothing(slot)[:0]  # (n, d_out)
        kept, right = differences if keep_graph else None, differences.detach()
        if not dual:
            parts = zip(captured.keys.split(ROWS_AT_ONCE), right.split(ROWS_AT_ONCE), strict=True)
            right = inner_product(parts)  # (d_in, d_out)
        return right, kept

    @torch.no_grad()
    def summed_shift(self, slot: LayerSlot, captured: KeysAndGradients) -> Tensor:
        """Return the sum of the shifts of a layer's single rows, (d_in, d_out).

        Raises:
            DivergedError: if it is not finite.
        """
        network = self.network(slot)
        with ranks().together():
            shift = self.summed(
                slot, captured, lambda rows: network.summed_shift(rows.keys, rows.gradients, slot.index)
            )
        if not ranks().sum(shift).isfinite().all():
            raise DivergedError(f"the shift of layer {slot.layer.name} is not finite")
        return shift

    def summed(self, slot: LayerSlot, captured: KeysAndGradients, work: Callable[[RowBatch], Tensor]) -> Tensor:
        """Return the sum of what ``work`` returns, (d_in, d_out), for batches of a layer's rows on this rank."""
        return total(self.in_rows(slot, captured, work)) if len(captured.keys) else self.nothing(slot)

    def nothing(self, slot: LayerSlot) -> Tensor:
        """Return a shift of 0 of a layer, (d_in, d_out)."""
        return torch.zeros(slot.layer.shape, dtype=self.network(slot).eta.dtype, device=self.device)

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
            gradients: by layer this rank's part of G = dL/dS, (d_in, d_out), or of K G, (n, d_out), where its solution
                has ``dual_keys``; overwritten.
        """
        with self.summing_gradients():
            if self.settings.aggregation == "sum":
                for slot in self.slots:
                    gradient = ranks().sum(gradients[slot.layer.name].to(self.device))
                    with ranks().together():
                        self.backward_through_sum(slot, captured[slot.layer.name], gradient)
                return
            for wave in ranks().waves(self.slots):
                self.backward_wave(wave, captured, solved, gradients)

    def backward_wave(
        self,
        slots: Sequence[LayerSlot],
        captured: dict[str, KeysAndGradients],
        solved: dict[str, Solution],
        gradients: dict[str, Tensor],
    ) -> None:
        """Back-propagate through the systems of as many layers as there are ranks, then through their networks."""
        equations = {}
        for slot in slots:
            equation = solved[slot.layer.name].equation
            assert equation is not None
            equation.take_gradient(gradients[slot.layer.name].to(self.device))
            equations[slot.layer.name] = equation
        with ranks().together(), torch.no_grad():  # theorems 1 and 2
            for name, equation in equations.items():
                equation.solve_back(solved[name].shift)
        found = {name: equation.to_differences() for name, equation in equations.items()}
        with ranks().together():
            for slot in slots:
                name = slot.layer.name
                self.backward_through_network(slot, captured[name], solved[name].differences, *found[name])

    def backward_through_network(
        self,
        slot: LayerSlot,
        captured: KeysAndGradients,
        differences: Tensor | None,
        to_differences: Tensor | Product,
        to_regularisation: Tensor | None,
    ) -> None:
        """Back-propagate through one layer's network, along the kept graph or by running the rows again.

        Args:
            slot: the layer.
            captured: its rows.
            differences: D, (n, d_out), if it keeps its graph.
            to_differences: dL/dD, (n, d_out).
            to_regularisation: dL/dlambda, a scalar; None if another rank has it.
        """
        if self.settings.regularised and to_regularisation is not None:
            self.network(slot).regularisation(slot.index).backward(to_regularisation)
        if differences is not None and differences.requires_grad:
            differences.backward(to_differences[:])
            return
        self.add_gradients(slot, captured, lambda rows: (self.differences_of(slot, rows), to_differences[rows.place]))

    def backward_through_sum(self, slot: LayerSlot, captured: KeysAndGradients, gradient: Tensor) -> None:
        """Back-propagate G, (d_in, d_out), to the pseudo keys and gradients of S = sum_j S_j, and on, by autograd."""
        network = self.network(slot)
        self.add_gradients(
            slot, captured, lambda rows: (network.summed_shift(rows.keys, rows.gradients, slot.index), gradient)
        )

    @contextmanager
    def summing_gradients(self) -> Iterator[None]:
        """Add to the networks' ``grad`` what the ``with`` block adds to it on all ranks together."""
        if ranks().alone:
            yield
            return
        parameters = list(self.networks.parameters())
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        yield
        reached = zip(*ranks().gathered([parameter.grad is not None for parameter in parameters]), strict=True)
        new = [
            parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) if anywhere else None
            for parameter, anywhere in zip(parameters, map(any, reached), strict=True)
        ]
        ranks().sum_all([gradient for gradient in new if gradient is not None])
        for parameter, old, gradient in zip(parameters, before, new, strict=True):
            parameter.grad = old if gradient is None else gradient if old is None else old.add_(gradient)

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

        with ranks().together():
            parts = [
                part
                for slot in self.slots
                for part in self.in_rows(slot, captured[slot.layer.name], partial(ratios, slot))
            ]
        return ranks().all_rows(torch.cat(parts) if parts else self.nothing(self.slots[0])[:0, 0])

    def in_rows(
        self, slot: LayerSlot, captured: KeysAndGradients, work: Callable[[RowBatch], Result]
    ) -> Iterator[Result]:
        """Yield what ``work`` returns for batches of a layer's rows, in their order."""
        network = self.network(slot)
        new = first_size(self.settings, network.graph_bytes(1), slot.layer.weight.device)
        size = self.row_sizes.setdefault((slot.network, self.settings), new)
        return in_row_batches(captured, size, slot.layer.name, work)
