"""The linear systems of MEMIT and its later relatives: from keys and missing changes to a layer's shift.

K, (m, d_in), holds the keys of the edits and R, (m, d_out), the changes that their values miss. C = E[k k^T],
(d_in, d_in), is that of keys on ordinary text, and C_p = K_p^T K_p that of all keys K_p that earlier rounds edited; it
is 0 unless the editor remembers them. The updates differ in how they protect other keys:

    MEMIT (Meng et al., 2023)       S = argmin ||K S - R||^2 + tr(S^T (w C + C_p) S)
    EMMET (Gupta et al., 2024)      S = argmin tr(S^T A S) where K S = R, with A = C + C_p / w
    AlphaEdit (Fang et al., 2025)   S = argmin ||K S - R||^2 + tr(S^T (C_p + alpha I) S) where C S is nearly 0:
                                    the columns of S lie in the span of U, the directions that text hardly has

All are computed in float64: a few directions hold nearly all of C, so the systems are badly conditioned.
"""

import torch
from torch import Tensor

SINGULAR_COVARIANCE = "the keys' covariance is singular; collect it from more tokens"


def least_squares(
    keys: Tensor, residual: Tensor, covariance: Tensor, weight: float, remembered: Tensor | None = None
) -> Tensor:
    """Return MEMIT's S = (w C + C_p + K^T K)^-1 K^T R, (d_in, d_out), in R's precision.

    Args:
        keys: K, (m, d_in).
        residual: R, (m, d_out).
        covariance: C, (d_in, d_in).
        weight: w.
        remembered: C_p, (d_in, d_in); None if there are no earlier keys.

    Raises:
        ArithmeticError: if the system is not positive definite.
    """
    k = keys.double()  # (m, d_in)
    system = k.T @ k + weight * covariance.to(k)  # (d_in, d_in)
    if remembered is not None:
        system += remembered.to(k)
    factor = cholesky(system, SINGULAR_COVARIANCE)
    return torch.cholesky_solve(k.T @ residual.to(k), factor).to(residual.dtype)  # (d_in, d_out)


def equality(
    keys: Tensor,
    residual: Tensor,
    covariance: Tensor,
    weight: float,
    ridge: float,
    remembered: Tensor | None = None,
) -> Tensor:
    """Return EMMET's S = A^-1 K^T (K A^-1 K^T + eps I)^-1 R with A = C + C_p / w, (d_in, d_out), in R's precision.

    It is also (eps A + K^T K)^-1 K^T R, hence MEMIT's with w = eps: with a small eps, edits come before ordinary text.
    This form serves where there are more keys than dimensions.

    Args:
        keys: K, (m, d_in).
        residual: R, (m, d_out).
        covariance: C, (d_in, d_in).
        weight: w; it matters only where there are earlier keys.
        ridge: eps >= 0; with 0, K S = R exactly, which needs linearly independent keys.
        remembered: C_p, (d_in, d_in); None if there are no earlier keys.

    Raises:
        ArithmeticError: if A or the system is not positive definite.
    """
    k = keys.double()  # (m, d_in)
    metric = covariance.to(k)  # A, (d_in, d_in)
    if remembered is not None:
        metric = metric + remembered.to(k) / weight
    m, d_in = k.shape
    if m >= d_in and ridge > 0:
        return least_squares(keys, residual, metric, ridge)
    spread = torch.cholesky_solve(k.T, cholesky(metric, SINGULAR_COVARIANCE))  # A^-1 K^T, (d_in, m)
    system = k @ spread  # (m, m)
    # Rounding lets the factorisation of about every second singular matrix succeed, with a pivot that is noise.
    noise = 10 * m * torch.finfo(system.dtype).eps * system.diagonal()  # (m,)
    system.diagonal().add_(ridge)
    dependent = "the keys depend linearly on each other; set a larger memit.ridge"
    factor = cholesky(system, dependent)  # (m, m)
    if (factor.diagonal() ** 2 <= noise).any():
        raise ArithmeticError(dependent)
    shift: Tensor = spread @ torch.cholesky_solve(residual.to(k), factor)  # (d_in, d_out)
    return shift.to(residual.dtype)


def null_space_basis(covariance: Tensor, threshold: float, share: float | None = None) -> Tensor:
    """Return U, (d_in, r), in float64: orthonormal directions that keys of ordinary text hardly have.

    They are eigenvectors of C (its singular vectors, since C is symmetric and positive semi-definite).

    Args:
        covariance: C, (d_in, d_in).
        threshold: those whose eigenvalue is smaller are kept; r may be 0.
        share: the share of directions that is kept, those with the smallest eigenvalues, in place of the threshold; at
            least one is.
    """
    values, vectors = torch.linalg.eigh(covariance.double())  # ascending, (d_in,), and (d_in, d_in)
    kept = int((values < threshold).sum()) if share is None else max(1, round(share * len(values)))
    basis: Tensor = vectors[:, :kept].clone()  # not a view, which would keep all vectors
    return basis


def null_space(
    keys: Tensor, residual: Tensor, basis: Tensor, regularisation: float, remembered: Tensor | None = None
) -> Tensor:
    """Return AlphaEdit's S = U (U^T (K^T K + C_p) U + alpha I)^-1 U^T K^T R, (d_in, d_out), in R's precision.

    With P = U U^T it is (P (K^T K + C_p) + alpha I)^-1 P K^T R, as AlphaEdit's authors write it. Without earlier keys
    and with fewer keys than directions, it comes from a system of m unknowns: U Q^T (Q Q^T + alpha I)^-1 R, Q = K U.

    Args:
        keys: K, (m, d_in).
        residual: R, (m, d_out).
        basis: U, (d_in, r), with orthonormal columns.
        regularisation: alpha > 0.
        remembered: C_p, (d_in, d_in); None if there are no earlier keys.

    Raises:
        ArithmeticError: if the system is not positive definite to working precision.
    """
    k = keys.double()  # (m, d_in)
    u, right = basis.to(k), residual.to(k)  # (d_in, r), (m, d_out)
    q = k @ u  # (m, r)
    dual = remembered is None and len(q) < q.shape[1]
    system = q @ q.T if dual else q.T @ q  # (m, m) or (r, r)
    if remembered is not None:
        system += u.T @ remembered.to(k) @ u
    system.diagonal().add_(regularisation)
    factor = cholesky(system, "the system in the null space is singular; set a larger memit.null_space.regularisation")
    solution = torch.cholesky_solve(right if dual else q.T @ right, factor)  # (m, d_out) or (r, d_out)
    shift: Tensor = u @ (q.T @ solution if dual else solution)  # (d_in, d_out)
    return shift.to(residual.dtype)


def cholesky(system: Tensor, problem: str) -> Tensor:
    """Return the lower Cholesky factor of a system, (d, d); raise ``ArithmeticError`` that tells the problem."""
    factor: Tensor
    factor, failed_at = torch.linalg.cholesky_ex(system)
    if failed_at.item():
        raise ArithmeticError(problem)
    return factor
