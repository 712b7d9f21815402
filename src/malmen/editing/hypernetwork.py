"""The hyper-network that refines keys and value gradients; shared by MEND and MALMEN (appendix A.1, A.6).

One network serves all edited layers of one weight shape; each layer has its own scale and shift in every block and its
own learning rate eta and regulariser lambda.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import threshold

from malmen.runtime.ranks import ranks


class ResidualBlock(nn.Module):
    """A low-rank residual block: z + scale_l * max(z A B + bias, 0) + shift_l.

    Args:
        size: d_in + d_out.
        rank: width of the bottleneck.
        n_layers: number of edited layers that share the block.
        generator: source of A's initial values.
    """

    def __init__(self, size: int, rank: int, n_layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(size, rank, generator=generator))
        self.B = nn.Parameter(torch.zeros(rank, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(n_layers, size))
        self.shift = nn.Parameter(torch.zeros(n_layers, size))

    def forward(self, z: Tensor, layer: int) -> Tensor:
        """Map (n, size) to (n, size) with the scale and shift of the given layer."""
        # B starts at 0, so every pre-activation starts at exactly 0. There the gradient must pass, or A, B and bias
        # never learn. It passes neither through relu nor, from torch 2.14 on, clamp. So the cut is just below 0.
        x = z @ self.A @ self.B + self.bias  # (n, size) by way of (n, rank)
        x = threshold(x, -torch.finfo(x.dtype).tiny, 0)  # (n, size)
        return z + self.scale[layer] * x + self.shift[layer]  # (n, size)


class Normaliser(nn.Module):
    """Running mean and variance of the rows [u ; grad] seen so far, and the standardisation by them.

    Batches are merged exactly (Chan et al.), so the result does not depend on how rows are batched, and a batch of one
    row needs no special case. The variance is the population's (divided by n).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.count: Tensor
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.zeros(size))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Merge (n, size) rows into the running mean and variance."""
        variance, mean = torch.var_mean(rows, dim=0, correction=0)  # (size,), (size,)
        self.merge(rows.shape[0], mean, variance)

    def merge(self, n: int | Tensor, mean: Tensor, variance: Tensor) -> None:
        """Merge n >= 1 rows of which mean and variance are known, both (size,)."""
        share = n / (self.count + n)
        delta = mean - self.mean  # (size,)
        self.variance += (share * (variance - self.variance + (1 - share) * delta**2)).to(self.variance.dtype)
        self.mean += (share * delta).to(self.mean.dtype)
        self.count += n

    def forward(self, rows: Tensor) -> Tensor:
        """Standardise (n, size) rows; a feature that never varied becomes 0."""
        return (rows - self.mean) / (self.variance.sqrt() + 1e-7)


class Moments(Protocol):
    """Running moments of rows; their buffers are what :meth:`merge` takes: number of rows, mean, and spread."""

    def update(self, rows: Tensor) -> None:
        """Merge rows, (n, size)."""

    def merge(self, n: int | Tensor, mean: Tensor, spread: Tensor, /) -> None:
        """Merge n >= 1 rows of which the moments are known."""

    def buffers(self) -> Iterator[Tensor]:
        """Return the moments."""


def update_on_all_ranks(updates: Iterable[tuple[Moments, Iterable[Tensor]]]) -> None:
    """Merge the batches of rows of all ranks, each (n, size), into running moments that all ranks hold alike.

    Args:
        updates: moments, each with this rank's batches of rows; some may be the same moments.
    """
    if ranks().alone:
        for moments, batches in updates:
            for rows in batches:
                moments.update(rows)
        return
    with ranks().together():
        found = [(moments, moments_of(moments, batches)) for moments, batches in updates]
    for moments, own in found:
        for n, mean, spread in zip(*map(ranks().each, own), strict=True):
            if n.item():
                moments.merge(n, mean, spread)


def moments_of(like: Moments, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return the moments of batches of rows, each (n, size), as the buffers of moments of one kind."""
    own = deepcopy(like)
    for buffer in own.buffers():
        buffer.zero_()
    for rows in filter(len, batches):
        own.update(rows)
    return list(own.buffers())


class HyperNetwork(nn.Module):
    """Maps (u, grad_v L) of one weight shape to (pseudo key, pseudo gradient).

    At the start it is the identity on its standardised input.

    Args:
        d_in: size of a key.
        d_out: size of a value.
        n_layers: number of edited layers of this shape.
        rank: rank of the blocks (paper: 1920).
        n_blocks: number of blocks (paper: 2).
        learning_rate: initial eta of every layer (paper: 1e-6).
        generator: source of the initial values.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n_layers: int,
        *,
        rank: int,
        n_blocks: int,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.d_in, self.rank = d_in, rank
        self.normaliser = Normaliser(d_in + d_out)
        self.blocks = nn.ModuleList(ResidualBlock(d_in + d_out, rank, n_layers, generator) for _ in range(n_blocks))
        self.eta = nn.Parameter(torch.full((n_layers,), learning_rate))
        self.log_regularisation = nn.Parameter(torch.zeros(n_layers))

    def forward(self, keys: Tensor, gradients: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Return pseudo keys (n, d_in) and pseudo gradients (n, d_out) for rows of the given layer."""
        z = self.normaliser(torch.cat((keys, gradients), dim=1))  # (n, d_in + d_out)
        for block in self.blocks:
            z = block(z, layer)
        return z[:, : self.d_in], z[:, self.d_in :]

    def value_differences(self, keys: Tensor, gradients: Tensor, layer: int) -> Tensor:
        """Return D with rows d_j = -eta (u_j . pseudo u_j) pseudo grad_j, (n, d_out) (appendix A.2)."""
        pseudo_keys, pseudo_gradients = self(keys, gradients, layer)  # (n, d_in), (n, d_out)
        differences: Tensor = -self.eta[layer] * (keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients
        return differences

    def summed_shift(self, keys: Tensor, gradients: Tensor, layer: int) -> Tensor:
        """Return S = sum_j S_j = -eta pseudo K^T pseudo G, (d_in, d_out) (MEND; appendix A.2)."""
        pseudo_keys, pseudo_gradients = self(keys, gradients, layer)  # (n, d_in), (n, d_out)
        shift: Tensor = -self.eta[layer] * pseudo_keys.T @ pseudo_gradients
        return shift

    def graph_bytes(self, n: int) -> int:
        """Return approximately how many bytes the graph of :meth:`value_differences` takes for ``n`` rows."""
        size, rank, n_blocks = len(self.normaliser.mean), self.rank, len(self.blocks)
        return n * ((3 + 3 * n_blocks) * size + n_blocks * rank) * self.eta.element_size()

    def regularisation(self, layer: int) -> Tensor:
        """Return lambda = exp(l) of the given layer, a scalar."""
        return self.log_regularisation[layer].exp()
