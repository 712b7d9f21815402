"""UltraEdit (Gu et al., 2025, arXiv 2505.14679), and StableEdit (arXiv 2605.11836), which adds whitening.

It is MALMEN without its hyper-network: keys and value gradients of a round are only standardised, by statistics that
run on over all rounds and that the layers of one weight shape share. For the n rows of an edited layer,

    u^, g^  =  u and dL/dv, standardised by the running mean and variance of their numbers, (n, d_in) and (n, d_out)
    d_j     =  -eta ||u^_j||^2 g^_j, the value difference of a row, (d_out,)
    S       =  (K^T K + lambda I)^-1 K^T D, (d_in, d_out), with the keys K of this round as they are.

With the factor u_j . u^_j in place of ||u^_j||^2 it is MALMEN before any training. With whitening,
g^ = (g - mean) C^(-1/2) by the running covariance C of all value gradients, once that is known.

Here the variance is the population's and 1e-7 is added to its root, as in MALMEN; the public code divides by n - 1 and
adds 1.2e-7.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from malmen.config.ultraedit import UltraEditSettings
from malmen.editing.aggregation import inner_product
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.hypernetwork import Normaliser, update_on_all_ranks
from malmen.editing.layers import EditedLayer
from malmen.editing.running_covariance import RunningCovariance
from malmen.editing.shared_equation import SharedEquation
from malmen.models.batch_sizes import ROWS_AT_ONCE
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.runtime.ranks import ranks

Standardise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes keys, (k, d_in), and value gradients, (k, d_out), to u^ and g^ of the same shapes."""


class Statistics(nn.Module):
    """What is known of the rows of all layers of one weight shape.

    Args:
        d_in: size of a key.
        d_out: size of a value.
        whitening: whether the covariance of value gradients is kept, too.
        dtype: precision of the rows.
    """

    def __init__(self, d_in: int, d_out: int, whitening: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.d_in = d_in
        normaliser = Normaliser(d_in + d_out)
        self.normaliser = normaliser.double() if dtype == torch.float64 else normaliser
        self.covariance = RunningCovariance(d_out) if whitening else None

    def update(self, rows: KeysAndGradients) -> None:
        """Merge the keys, (n, d_in), and value gradients, (n, d_out), of all ranks into the statistics."""
        update_on_all_ranks([(self.normaliser, (torch.cat(piece, dim=1) for piece in pieces(rows)))])
        if self.covariance is not None:
            update_on_all_ranks([(self.covariance, (gradients for _, gradients in pieces(rows)))])

    def standardiser(self, whitened: bool, floor: float) -> Standardise:
        """Return what standardises rows.

        Args:
            whitened: whether gradients are whitened, if their covariance is known.
            floor: of the covariance's eigenvalues.
        """
        covariance = self.covariance
        whitener = covariance.whitener(floor) if whitened and covariance is not None and covariance.known else None

        def standardise(keys: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
            rows = self.normaliser(torch.cat((keys, gradients), dim=1))  # (k, d_in + d_out)
            if whitener is None or covariance is None:
                return rows[:, : self.d_in], rows[:, self.d_in :]
            white = (gradients - covariance.mean) @ whitener  # (k, d_out) (d_out, d_out) in float64
            return rows[:, : self.d_in], white.to(gradients.dtype)

        return standardise


class Lifelong(nn.Module):
    """The statistics of all weight shapes, by "d_in x d_out", and the number of rounds that they have seen.

    Args:
        layers: the edited layers.
        whitening: as in :class:`Statistics`.
    """

    def __init__(self, layers: Sequence[EditedLayer], whitening: bool) -> None:
        super().__init__()
        self.rounds: Tensor
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))
        dtypes = {layer.shape: torch.promote_types(layer.weight.dtype, torch.float32) for layer in layers}
        self.shapes = nn.ModuleDict(
            {name_of(shape): Statistics(*shape, whitening, dtype) for shape, dtype in dtypes.items()}
        )

    def of(self, layer: EditedLayer) -> Statistics:
        """Return the statistics of a layer's shape."""
        statistics = self.shapes[name_of(layer.shape)]
        assert isinstance(statistics, Statistics)
        return statistics


class UltraEditEditor:
    """UltraEdit or StableEdit, depending on the settings.

    It remembers its statistics from round to round (:class:`malmen.editing.editor.Remembering`). Shifts that no
    :meth:`end_round` follows leave no trace: each such group of edits is a first round.

    Args:
        layers: the edited layers.
        settings: how it edits.
    """

    def __init__(self, layers: Sequence[EditedLayer], settings: UltraEditSettings) -> None:
        self.layers, self.settings = layers, settings
        self.device = layers[0].weight.device
        self.remembered = Lifelong(layers, settings.whitening).to(self.device)
        self.coming: Lifelong | None = None  # with the rows of the round whose shifts were computed last

    @torch.no_grad()
    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer the shift S, (d_in, d_out), that makes a round of edits in the weights as they are.

        The statistics take note of the round's rows first. A row alone standardises to 0, so that its shift is 0.

        Raises:
            DivergedError: if a key or gradient is not finite, a normal equation is singular, or a shift is not finite.
        """
        self.coming = None
        weighted = with_loss_weights(edits, self.settings.virtual_batches)
        captured = capture(model, self.layers, weighted, self.settings, self.device)
        known = self.with_rows(captured)
        white = self.settings.whitening and int(known.rounds) > self.settings.warm_up
        floor = self.settings.covariance_floor
        by_shape = {layer.shape: known.of(layer).standardiser(white, floor) for layer in self.layers}
        shifts = {layer.name: self.solve(layer, captured[layer.name], by_shape[layer.shape]) for layer in self.layers}
        self.coming = known
        return shifts

    def with_rows(self, captured: Mapping[str, KeysAndGradients]) -> Lifelong:
        """Return the statistics after a round with these keys, (n, d_in), and value gradients, (n, d_out), by layer."""
        known = deepcopy(self.remembered)
        for layer in self.layers:
            known.of(layer).update(captured[layer.name])
        known.rounds += 1
        return known

    def solve(
        self, layer: EditedLayer, rows: KeysAndGradients, standardise: Standardise, dual: bool | None = None
    ) -> Tensor:
        """Return the shift S, (d_in, d_out), of a layer with n rows; ``dual`` as in :meth:`NormalEquation.of`.

        Raises:
            DivergedError: if the normal equation is singular or the shift is not finite.
        """
        here = ranks()
        (counts,), owner = here.counts(len(rows.keys)), here.owner(list(self.layers).index(layer))
        system = SharedEquation(layer.name, rows.keys, layer.shape, self.settings.regularisation, counts, owner, dual)
        eta = self.settings.eta(*layer.shape)
        system.begin()
        with here.together():
            system.factorise()
            parts = ((keys, self.differences(standardise, eta, keys, gradients)) for keys, gradients in pieces(rows))
            right = torch.cat([differences for _, differences in parts]) if system.dual else inner_product(parts)
        system.take(right)
        with here.together():
            system.solve()
        return system.shift()

    def differences(self, standardise: Standardise, eta: float, keys: Tensor, gradients: Tensor) -> Tensor:
        """Return D, (k, d_out), for keys, (k, d_in), and value gradients, (k, d_out)."""
        standard_keys, standard_gradients = standardise(keys, gradients)  # u^, (k, d_in), and g^, (k, d_out)
        other = standard_keys if self.settings.factor == "normalised" else keys
        return -eta * (other * standard_keys).sum(1, keepdim=True) * standard_gradients  # (k, 1) (k, d_out)

    # What it remembers.

    def end_round(self, model: LanguageModel, edits: Sequence[Example]) -> None:  # noqa: ARG002 (of the protocol)
        """Keep the statistics that the round's shifts were computed with.

        Raises:
            ValueError: if no shifts were computed since the last round.
        """
        if self.coming is None:
            raise ValueError("a round ends after its shifts were computed")
        self.remembered, self.coming = self.coming, None

    def memory(self) -> dict[str, Tensor]:
        """Return copies of the statistics of all rounds that have ended, such as "shapes.512x128.normaliser.mean"."""
        return {name: tensor.detach().clone() for name, tensor in self.remembered.state_dict().items()}

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from the statistics that :meth:`memory` returned.

        Raises:
            RuntimeError: if they are those of an editor of other shapes or settings.
        """
        self.coming = None
        self.remembered.load_state_dict(dict(memory))


def name_of(shape: tuple[int, int]) -> str:
    """Return the name of a weight shape (d_in, d_out)."""
    return f"{shape[0]}x{shape[1]}"


def pieces(rows: KeysAndGradients) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the keys, (k, d_in), and value gradients, (k, d_out), of a layer, some rows at a time."""
    return zip(rows.keys.split(ROWS_AT_ONCE), rows.gradients.split(ROWS_AT_ONCE), strict=True)
