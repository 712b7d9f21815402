"""From one value difference per token to one shift per layer: the paper's idea (section 4.1), with its backward.

Rows are tokens. K (n, d_in) holds the keys u_j, D (n, d_out) the value differences d_j = S_j u_j that the
hyper-network asks for. MALMEN looks for the single shift that gives all of them at once, in the least-squares sense,

    S = argmin ||K S - D||^2 + lambda ||S||^2 = (K^T K + lambda I)^-1 K^T D,                              (section 4.1)

and needs, for the separated back-propagation (section 4.2), the gradients of a loss to D and lambda given its gradient
G = dL/dS. With M = (K^T K + lambda I)^-1 G they are

    dL/dD = K M,                  dL/dlambda = -<M, S>                                            (theorems 1 and 2)

where <., .> is the sum of the elementwise product (the trace of M^T S: Algorithm 2 drops the transpose).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class SingularSystemError(ArithmeticError):
    """The normal equation has no unique solution: the keys do not span their space and nothing regularises them."""


@dataclass(frozen=True)
class NormalEquation:
    """The factorised system K^T K + lambda I of one layer; it serves the forward and the backward pass.

    Attributes:
        keys: K, (n, d_in).
        regularisation: lambda >= 0.
        factor: lower Cholesky factor of K^T K + lambda I, (d_in, d_in).
    """

    keys: Tensor
    regularisation: float
    factor: Tensor

    @classmethod
    def of(cls, keys: Tensor, regularisation: float) -> "NormalEquation":
        """Form and factorise the system.

        Raises:
            SingularSystemError: if it is not positive definite to working precision.
        """
        gram = keys.T @ keys
        gram.diagonal().add_(regularisation)
        factor, failed_at = torch.linalg.cholesky_ex(gram)
        singular = failed_at.item() or not factor.isfinite().all()
        if regularisation == 0:
            # Rounding lets the factorisation of about every second singular matrix succeed, with a pivot that is noise.
            noise = 10 * torch.finfo(gram.dtype).eps * gram.diagonal()
            singular = singular or keys.shape[0] < keys.shape[1] or (factor.diagonal() ** 2 <= noise).any()
        if singular:
            raise SingularSystemError(
                f"the normal equation of {keys.shape[0]} keys in {keys.shape[1]} dimensions is singular "
                f"with a regularisation of {regularisation:g}"
            )
        return cls(keys, regularisation, factor)

    def solve(self, right: Tensor) -> Tensor:
        """Return (K^T K + lambda I)^-1 ``right`` for ``right`` of (d_in, k)."""
        return torch.cholesky_solve(right, self.factor)

    def shift(self, differences: Tensor) -> Tensor:
        """Return S, (d_in, d_out), for value differences D, (n, d_out)."""
        return self.solve(self.keys.T @ differences)

    def backward(self, gradient: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Return dL/dD, (n, d_out), and dL/dlambda, a scalar, for G = dL/dS and S, both (d_in, d_out)."""
        m = self.solve(gradient)
        return self.keys @ m, -(m * shift).sum()
