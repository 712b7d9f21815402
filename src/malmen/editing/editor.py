"""What every editor is, and the two that are trained: MEND and MALMEN.

An editor, given a model and a group of edit tuples, returns one shift per layer it edits. Evaluation, timing and
memory measurement know nothing else about it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from malmen.config.base import Dtype, TaskName
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.aggregation import NormalEquation
from malmen.editing.capture import KeysAndGradients, RowBatch, capture
from malmen.editing.hypernetwork import HyperNetwork
from malmen.editing.layers import EditedLayer, Shifts
from malmen.editing.rows import Rows, whole
from malmen.errors import DivergedError, UserError
from malmen.models.batch_sizes import rows_at_once
from malmen.models.batching import Size, in_parts, whole_in_memory
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.files import replacing

Result = TypeVar("Result")


class Editor(Protocol):
    """Anything that turns edit tuples into shifts."""

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> Shifts:
        """Return the shift of each of ``layers``, by name, as (d_in, d_out)."""


@dataclass(frozen=True)
class TrainedFor:
    """What an editor was trained for: the ``about`` of its file, as a dictionary.

    Attributes:
        model: name of the model.
        weights: which model that is (:func:`malmen.models.identity.weights_digest`).
        task: how the model answers.
        editor: name of the editor in figures.
        n_edits: number of edits m.
        seed: of its draws.
        dtype: precision of the model's weights meanwhile.
        diverged: why its training stopped early; None if it did not.
    """

    model: str
    weights: str
    task: TaskName
    editor: str
    n_edits: int
    seed: int
    dtype: Dtype
    diverged: str | None = None

    @classmethod
    def read(cls, path: Path) -> "TrainedFor":
        """Read it from an editor's file, without the model.

        Raises:
            UserError: if the file is no editor, or was written before this was recorded.
        """
        try:
            return cls(**read_editor(path)[0]["about"])
        except TypeError:
            raise UserError(f"{path} does not say which model it was trained for; train it anew.") from None


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
        equation: the normal equation behind it; None if the shift is a sum.
        differences: D, (n, d_out), where the equation needs it again (in its dual form) or it keeps its graph; else
            there are never more than a batch of its rows.
    """

    shift: Tensor
    equation: NormalEquation | None = None
    differences: Tensor | None = None

    @property
    def dual_keys(self) -> Tensor | None:
        """K, (n, d_in), where the backward pass needs K dL/dS only and few rows make that cheaper than dL/dS."""
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
        """Make an untrained editor whose initial values are drawn from ``seed``, on its device or else the layers'."""
        counts: dict[tuple[int, int], int] = {}
        slots = []
        for layer in layers:
            index = counts.get(layer.shape, 0)
            slots.append(LayerSlot(layer, shape_name(layer.shape), index))
            counts[layer.shape] = index + 1
        generator = torch.Generator().manual_seed(seed)
        networks = nn.ModuleDict(
            {
                shape_name(shape): HyperNetwork(
                    *shape,
                    n_layers=n_layers,
                    rank=settings.rank,
                    n_blocks=settings.blocks,
                    learning_rate=settings.learning_rate,
                    generator=generator,
                )
                for shape, n_layers in counts.items()
            }
        )
        return cls(layers, settings, networks.to(settings.device or layers[0].weight.device), slots)

    @property
    def device(self) -> torch.device:
        """Where the networks lie, and with them cached rows, linear systems and shifts."""
        return next(self.networks.parameters()).device

    def network(self, slot: LayerSlot) -> HyperNetwork:
        """Return the hyper-network of a layer."""
        network = self.networks[slot.network]
        assert isinstance(network, HyperNetwork)
        return network

    def capture(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Return keys and value gradients of the edit tuples at the edited layers, on the editor's device.

        Raises:
            DivergedError: if one of them is not finite.
        """
        settings = self.settings
        return capture(
            model, self.layers, edits, settings.tokens, settings.batch_size, settings.rows_bytes, self.device
        )

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return the shifts for a group of edits (Algorithm 1).

        Raises:
            DivergedError: if a normal equation is singular or a shift is not finite.
        """
        return self.aggregate(self.capture(model, edits))

    def aggregate(self, captured: dict[str, KeysAndGradients]) -> dict[str, Tensor]:
        """Return the shifts for what was cached of a group of edits.

        Raises:
            DivergedError: if a normal equation is singular or a shift is not finite.
        """
        return {slot.layer.name: self.solve_layer(slot, captured[slot.layer.name]).shift for slot in self.slots}

    @torch.no_grad()
    def residuals(self, captured: dict[str, KeysAndGradients], shifts: Shifts) -> Tensor:
        """Return ||S u_j - d_j|| / ||d_j|| of all rows of all layers, one after the other (section 5.2, Figure 8).

        It tells by how much the one shift misses what the shift of each single token would do. A row of which nothing
        is asked, d_j = 0, has no residual and is left out.
        """
        parts: list[Tensor] = []
        for slot in self.slots:
            parts += self.residuals_of_layer(slot, captured[slot.layer.name], shifts[slot.layer.name])
        return torch.cat(parts)

    def residuals_of_layer(self, slot: LayerSlot, captured: KeysAndGradients, shift: Tensor) -> Iterator[Tensor]:
        """Yield the residuals of one layer's rows, a batch of them after the other."""

        def ratios(rows: RowBatch) -> Tensor:
            differences = self.differences_of(slot, rows)
            missed = (rows.keys @ shift - differences).norm(dim=1)
            asked = differences.norm(dim=1)
            relative: Tensor = missed[asked > 0] / asked[asked > 0]
            return relative

        return self.in_rows(slot, captured, ratios)

    def solve(self, captured: dict[str, KeysAndGradients], for_backward: bool = False) -> dict[str, Solution]:
        """Return each layer's shift, and what the backward pass needs again.

        Args:
            captured: keys and value gradients of each layer.
            for_backward: whether :meth:`backward` follows: the graphs of the value differences are kept then, for as
                many layers as the settings' ``graph_bytes`` allow, which saves running these layers' rows through the
                networks again.

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
        """Return one layer's shift and, for MALMEN, its factorised system."""
        if self.settings.aggregation == "sum":
            solution = Solution(self.summed_shift(slot, captured))
        else:
            equation = self.equation(slot, captured.keys)
            if keep_graph or equation.dual:
                differences = self.differences(slot, captured, keep_graph)
                solution = Solution(equation.shift(differences.detach()), equation, differences)
            else:
                solution = Solution(equation.solve(self.projected_differences(slot, captured)), equation)
        if not solution.shift.isfinite().all():
            raise DivergedError(f"the shift of layer {slot.layer.name} is not finite")
        return solution

    @torch.no_grad()
    def summed_shift(self, slot: LayerSlot, captured: KeysAndGradients) -> Tensor:
        """Return the sum of the shifts of a layer's single rows, (d_in, d_out)."""
        network = self.network(slot)
        return total(
            self.in_rows(slot, captured, lambda rows: network.summed_shift(rows.keys, rows.gradients, slot.index))
        )

    def differences(self, slot: LayerSlot, captured: KeysAndGradients, keep_graph: bool) -> Tensor:
        """Return the value differences D of a layer's rows, (n, d_out)."""
        with torch.set_grad_enabled(keep_graph):
            return torch.cat(list(self.in_rows(slot, captured, lambda rows: self.differences_of(slot, rows))))

    @torch.no_grad()
    def projected_differences(self, slot: LayerSlot, captured: KeysAndGradients) -> Tensor:
        """Return K^T D, (d_in, d_out)."""
        return total(self.in_rows(slot, captured, lambda rows: rows.keys.T @ self.differences_of(slot, rows)))

    def differences_of(self, slot: LayerSlot, rows: RowBatch) -> Tensor:
        """Return the value differences of some rows of a layer."""
        differences: Tensor = self.network(slot).value_differences(rows.keys, rows.gradients, slot.index)
        return differences

    def backward(
        self, captured: dict[str, KeysAndGradients], solved: dict[str, Solution], gradients: dict[str, Tensor]
    ) -> None:
        """Add to the networks' ``grad`` what a loss with gradient dL/dS in each layer asks of them (Algorithm 2).

        Args:
            captured: keys and value gradients of each layer.
            solved: the shifts that :meth:`solve` made of them.
            gradients: dL/dS of each layer, (d_in, d_out); K dL/dS, (n, d_out), where its solution has weighing keys.
        """
        for slot in self.slots:
            name = slot.layer.name
            self.backward_layer(slot, captured[name], solved[name], gradients[name].to(self.device))

    def backward_layer(self, slot: LayerSlot, captured: KeysAndGradients, solved: Solution, gradient: Tensor) -> None:
        """Back-propagate the proxy loss through one layer's network: along the kept graph, or a batch of rows anew."""
        network, differences = self.network(slot), solved.differences
        if solved.equation is None:
            self.add_gradients(
                slot,
                captured,
                lambda rows: (network.summed_shift(rows.keys, rows.gradients, slot.index), gradient),
            )
            return
        projected = solved.dual_keys is not None
        with torch.no_grad():
            to_differences, to_regularisation = solved.equation.backward(
                gradient, solved.shift, differences, projected=projected
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
        """Add a loss's gradient to the ``grad`` of a layer's network, a batch of rows after the other.

        Args:
            slot: the layer.
            captured: its rows.
            outputs: gives for some rows what the network makes of them, and the gradient of the loss to that.
        """
        parameters = list(self.network(slot).parameters())

        def gradients_of(rows: RowBatch) -> Sequence[Tensor | None]:
            output, to_output = outputs(rows)
            return torch.autograd.grad(output, parameters, to_output, allow_unused=True)

        # Added only once they are all there: had memory run out before, the rows would be run again.
        for gradients in self.in_rows(slot, captured, gradients_of):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def equation(self, slot: LayerSlot, keys: Rows) -> NormalEquation:
        """Factorise the layer's normal equation; in an unregularised editor lambda is 0."""
        regularisation = (
            float(self.network(slot).regularisation(slot.index).detach()) if self.settings.regularised else 0.0
        )
        try:
            with whole_in_memory(f"The normal equation of layer {slot.layer.name}"):
                return NormalEquation.of(keys, regularisation)
        except ArithmeticError as error:
            raise DivergedError(f"in layer {slot.layer.name}, {error}") from None

    def in_rows(
        self, slot: LayerSlot, captured: KeysAndGradients, work: Callable[[RowBatch], Result]
    ) -> Iterator[Result]:
        """Yield what ``work`` makes of a layer's rows, so many at a time as memory allows (:func:`in_parts`)."""
        automatic = self.settings.rows_per_batch == "auto"
        new = Size.on(slot.layer.weight.device, self.rows_at_once(self.network(slot)), automatic)
        size = self.row_sizes.setdefault((slot.network, self.settings), new)
        what = f"One cached row of layer {slot.layer.name} in the hyper-network"
        return in_parts(range(len(captured.keys)), size, lambda rows: work(captured.row_batch(rows)), what)

    def rows_at_once(self, network: HyperNetwork) -> int:
        """Return how many rows are run through a network at once, before anything is learned of memory and speed.

        Unless set, it depends on the network's size alone.
        """
        settings = self.settings
        return rows_at_once(settings.rows_per_batch, settings.graph_bytes, network.graph_bytes(1))

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write the trained editor as one safetensors file whose header holds its settings, layers and ``about``."""
        settings = asdict(replace(self.settings, device=None))  # which another machine may not have
        header = {"settings": settings, "layers": [layer.name for layer in self.layers], "about": about}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.networks.state_dict().items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"malmen_editor": json.dumps(header, sort_keys=True)})

    @classmethod
    def load(
        cls, path: Path, candidates: Sequence[EditedLayer], device: str | None = None
    ) -> tuple["HyperNetworkEditor", dict[str, Any]]:
        """Read a trained editor for the model whose linear layers are ``candidates``; return it with its ``about``.

        Args:
            path: its file.
            candidates: the model's linear layers.
            device: where it is to lie; the layers' device if None.

        Raises:
            UserError: if the file is no editor, or an editor of other layers than the model has.
        """
        header, tensors = read_editor(path)
        by_name = {layer.name: layer for layer in candidates}
        missing = [name for name in header["layers"] if name not in by_name]
        if missing:
            raise UserError(
                f"{path} edits layer {missing[0]}, which this model does not have; it was trained for another."
            )
        layers = [by_name[name] for name in header["layers"]]
        editor = cls.create(layers, replace(header["settings"], device=device), seed=0)
        try:
            editor.networks.load_state_dict(tensors)
        except RuntimeError:
            raise UserError(
                f"{path} was trained for layers of other sizes than this model's; choose another."
            ) from None
        return editor, header["about"]


def total(summands: Iterable[Tensor]) -> Tensor:
    """Return the sum of one or more tensors, which may be overwritten."""
    remaining = iter(summands)
    result = next(remaining)
    for summand in remaining:
        result += summand
    return result


def shape_name(shape: tuple[int, int]) -> str:
    """Name a weight shape as a key of a module dictionary."""
    return f"{shape[0]}x{shape[1]}"


def read_editor(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of an editor's file; anything else than an editor is a :class:`UserError`."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["malmen_editor"])
            header["settings"] = HyperNetworkSettings(**header["settings"])
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a trained editor ({type(error).__name__}); train it anew.") from None
