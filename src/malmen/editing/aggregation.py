"""From one value difference per token to one shift per layer: the paper's idea (section 4.1), with its backward.

Rows are tokens. K (n, d_in) holds the keys u_j, D (n, d_out) the value differences d_j = S_j u_j that the
hyper-network asks for. MALMEN looks for the single shift that gives all of them at once, in the least-squares sense,

    S = argmin ||K S - D||^2 + lambda ||S||^2 = (K^T K + lambda I)^-1 K^T D,                              (section 4.1)

and needs, for the separated back-propagation (section 4.2), the gradients of a loss to D and lambda given its gradient
G = dL/dS. With M = (K^T K + lambda I)^-1 G they are

    dL/dD = K M,                  dL/dlambda = -<M, S>                                            (theorems 1 and 2)

where <., .> is the sum of the elementwise product (the trace of M^T S: Algorithm 2 drops the transpose).

With fewer rows than dimensions the same values come from a system of n unknowns instead of d_in, since
(K^T K + lambda I)^-1 K^T = K^T (K K^T + lambda I)^-1. With A = K K^T + lambda I and P = A^-1 K G they are

    S = K^T A^-1 D,               dL/dD = P,                  dL/dlambda = -<P, A^-1 D>.

This form works in float64. Rounding hits it where it hurts: A^-1 D is long in the directions that keys share least, and
K^T cancels it there, so in float32 the error of K S, which is what the edits get, grows with the square of the keys'
length. With few rows, float64 costs little; one step of iterative refinement would cost more and leave a larger error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.editing.rows import Rows, kept_like, whole
from malmen.models.batch_sizes import ROWS_AT_ONCE

COLUMNS_AT_ONCE = 1024
"""Number of the keys' columns that are in float64 at once."""


class SingularSystemError(ArithmeticError):
    """The normal equation has no unique solution: the keys do not span their space and nothing regularises them."""


@dataclass(frozen=True)
class NormalEquation:
    """The factorised system of one layer; it serves the forward and the backward pass.

    Attributes:
        keys: K, (n, d_in); where they are kept in a file, the factor is too.
        regularisation: lambda >= 0.
        factor: lower Cholesky factor of K^T K + lambda I, (d_in, d_in); in the dual form of A, (n, n), in float64.
        dual: whether the system is solved in its dual form.
    """

    keys: Rows
    regularisation: float
    factor: Rows
    dual: bool

    @classmethod
    def of(cls, keys: Rows, regularisation: float, dual: bool | None = None) -> "NormalEquation":
        """Form and factorise the system, in the dual form if that is smaller, unless ``dual`` says otherwise.

        Raises:
            SingularSystemError: if it is not positive definite to working precision.
        """
        dual = smaller_if_dual(keys.shape, regularisation) if dual is None else dual
        return cls.of_gram(gram_of(keys, dual), keys, regularisation, dual, len(keys))

    @classmethod
    def of_gram(cls, gram: Tensor, keys: Rows, regularisation: float, dual: bool, n: int) -> "NormalEquation":
        """Factorise the system of a Gram matrix, which is overwritten.

        Args:
            gram: K^T K, (d_in, d_in), of n rows, of which ``keys`` may be a part; in the dual form K K^T, (n, n).
            keys: K, (n, d_in), or a part of its rows.
            regularisation: lambda >= 0.
            dual: which form it is.
            n: the number of all rows.

        Raises:
            SingularSystemError: if it is not positive definite to working precision.
        """
        d_in = keys.shape[1]
        gram.diagonal().add_(regularisation)
        factor, failed_at = torch.linalg.cholesky_ex(gram)
        singular = failed_at.item() or not factor.isfinite().all()
        if regularisation == 0:
            # Rounding lets the factorisation of about every second singular matrix succeed, with a pivot that is noise.
            noise = 10 * torch.finfo(gram.dtype).eps * gram.diagonal()
            singular = singular or n < d_in or (factor.diagonal() ** 2 <= noise).any()
        if singular:
            raise SingularSystemError(
                f"the normal equation of {n} keys in {d_in} dimensions is singular "
                f"with a regularisation of {regularisation:g}"
            )
        return cls(keys, regularisation, kept_like(keys, factor), dual)

    def solve(self, right: Tensor) -> Tensor:
        """Return what solves the system for ``right``, (d_in, k) or, in the dual form, (n, k), in its precision."""
        factor = whole(self.factor)
        return torch.cholesky_solve(right.to(factor.dtype), factor)

    def shift(self, differences: Tensor) -> Tensor:
        """Return S, (d_in, d_out), for value differences D, (n, d_out)."""
        if self.dual:
            solution = self.solve(differences)  # (n, d_out)
            # (d_in, n) (n, d_out)
            return torch.cat([(piece.T @ solution).to(differences.dtype) for piece in columns(whole(self.keys))])
        pieces = zip(self.keys.split(ROWS_AT_ONCE), differences.split(ROWS_AT_ONCE), strict=True)
        return self.solve(inner_product(pieces))  # (d_in, d_out)

    def backward(
        self, gradient: Tensor, shift: Tensor, differences: Tensor | None = None, *, projected: bool = False
    ) -> tuple["Tensor | Product", Tensor]:
        """Return dL/dD, (n, d_out), of which slices can be taken, and dL/dlambda, a scalar.

        Args:
            gradient: G = dL/dS, (d_in, d_out).
            shift: S, (d_in, d_out).
            differences: D, (n, d_out); needed in the dual form only.
            projected: whether ``gradient`` is K G, (n, d_out), instead, which is all that the dual form needs.
        """
        if self.dual:
            assert differences is not None
            solution = self.solve(gradient if projected else whole(self.keys) @ gradient)  # P, (n, d_out)
            to_regularisation = -(solution * self.solve(differences)).sum()
            return solution.to(gradient.dtype), to_regularisation.to(gradient.dtype)
        m = self.solve(gradient)  # M, (d_in, d_out)
        return Product(self.keys, m), -(m * shift).sum()


@dataclass(frozen=True)
class Product:
    """K M, (n, d_out), computed for the rows that are asked for.

    Attributes:
        keys: K, (n, d_in).
        m: M, (d_in, d_out).
    """

    keys: Rows
    m: Tensor

    def __getitem__(self, place: slice) -> Tensor:
        return self.keys[place] @ self.m


def smaller_if_dual(shape: torch.Size, regularisation: float) -> bool:
    """Return whether the dual form is possible and smaller for keys of a shape (n, d_in)."""
    n, d_in = shape
    return n < d_in and regularisation > 0


def gram_of(keys: Rows, dual: bool) -> Tensor:
    """Return K^T K, (d_in, d_in), of keys, (n, d_in); in the dual form K K^T, (n, n), in float64."""
    if dual:
        return inner_product((piece.T, piece.T) for piece in columns(whole(keys)))
    return inner_product((piece, piece) for piece in keys.split(ROWS_AT_ONCE))


def inner_product(pieces: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return A^T B, (p, q), of A, (n, p), and B, (n, q), given as pieces of the same rows."""
    remaining = iter(pieces)
    a, b = next(remaining)
    total = a.T @ b
    for a, b in remaining:
        total.addmm_(a.T, b)
    return total


def columns(matrix: Tensor) -> Iterator[Tensor]:
    """Yield a matrix, (n, d), in float64, some of its columns at a time."""
    for piece in matrix.split(COLUMNS_AT_ONCE, dim=1):
        yield piece.double()
