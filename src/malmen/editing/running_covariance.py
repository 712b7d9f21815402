"""The running covariance of value gradients, and the whitening by it."""

import torch
from torch import Tensor, nn


class RunningCovariance(nn.Module):
    """Running mean and scatter of the rows seen so far: the sum of (g - mean)^T (g - mean).

    Batches are merged exactly, as in :class:`malmen.editing.hypernetwork.Normaliser`, so the result does not depend on
    how rows are batched. The numbers are in float64: small eigenvalues of the covariance decide about whitening.

    Args:
        size: d, of a row.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.count: Tensor
        self.mean: Tensor
        self.scatter: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("scatter", torch.zeros(size, size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Merge (n, d) rows into the running mean and scatter."""
        rows = rows.double()
        mean = rows.mean(0)  # (d,)
        centred = rows - mean  # (n, d)
        self.merge(rows.shape[0], mean, centred.T @ centred)

    def merge(self, n: int | Tensor, mean: Tensor, scatter: Tensor) -> None:
        """Merge n >= 1 rows of which mean, (d,), and scatter, (d, d), are known."""
        share = n / (self.count + n)
        delta = mean - self.mean  # (d,)
        self.scatter += scatter + self.count * share * torch.outer(delta, delta)  # (d, d)
        self.mean += share * delta
        self.count += n

    @property
    def known(self) -> bool:
        """Whether there are enough rows to whiten: more than d + 1."""
        return float(self.count) > len(self.mean) + 1

    def whitener(self, floor: float) -> Tensor:
        """Return C^(-1/2), (d, d), for the covariance C = scatter / (n - d - 1) of ``known`` rows.

        Args:
            floor: smaller eigenvalues of C are raised to it; in squared units of a row.
        """
        covariance = self.scatter / (self.count - len(self.mean) - 1)  # (d, d)
        values, vectors = torch.linalg.eigh(covariance)  # (d,), (d, d)
        root: Tensor = (vectors * values.clamp_min(floor).rsqrt()) @ vectors.T  # (d, d)
        return root
