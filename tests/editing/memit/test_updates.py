"""The shifts of MEMIT, EMMET and AlphaEdit against their printed formulas and the problems that they solve."""

import pytest
import torch
from torch import Tensor

from malmen.editing.memit.updates import equality, least_squares, null_space, null_space_basis

D_IN, D_OUT = 20, 6
ALL = torch.eye(D_IN).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def edits(n_keys: int) -> tuple[Tensor, Tensor]:
    """Return K, (n_keys, d_in), and R, (n_keys, d_out)."""
    return normal(n_keys, D_IN), normal(n_keys, D_OUT, seed=1)


def gram(rows: Tensor) -> Tensor:
    return rows.T @ rows


def text_covariance(n_directions: int = D_IN) -> Tensor:
    """Return C, (d_in, d_in), of keys that have some directions only."""
    return gram(normal(50, n_directions, seed=2) @ normal(n_directions, D_IN, seed=3)) / 50


# ----------------------------------------------------------------------------------------------- MEMIT


@pytest.mark.parametrize("n_keys", [3, 40])
@pytest.mark.parametrize("weight", [0.1, 1e4])
def test_the_shift_solves_the_stacked_least_squares_problem(n_keys: int, weight: float) -> None:
    """||K S - R||^2 + w tr(S^T C S) is the squared residual of [K; sqrt(w) L^T] S = [R; 0] where C = L L^T."""
    generator = torch.Generator().manual_seed(0)
    keys, residual, text = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((n_keys, 20), (n_keys, 6), (50, 20))
    )
    moment = text.T @ text / 50
    stacked = torch.cat([keys, weight**0.5 * torch.linalg.cholesky(moment).T])
    right = torch.cat([residual, torch.zeros(20, 6).double()])
    expected = torch.linalg.lstsq(stacked, right, driver="gelsd").solution
    torch.testing.assert_close(least_squares(keys, residual, moment, weight), expected, atol=1e-11, rtol=1e-9)


def test_a_badly_conditioned_system_is_solved_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, residual = torch.randn(4, 20, generator=generator), torch.randn(4, 6, generator=generator)
    moment = torch.diag(10.0 ** torch.linspace(0, -9, 20))
    expected = least_squares(keys.double(), residual.double(), moment.double(), 10.0)
    torch.testing.assert_close(least_squares(keys, residual, moment, 10.0), expected.float(), atol=0, rtol=1e-6)


def test_without_earlier_keys_memit_is_bit_for_bit_the_formula() -> None:
    keys, residual = (matrix.float() for matrix in edits(7))
    k = keys.double()
    system = k.T @ k + 15.0 * text_covariance()
    factor = torch.linalg.cholesky(system)
    expected = torch.cholesky_solve(k.T @ residual.double(), factor).float()
    assert torch.equal(least_squares(keys, residual, text_covariance(), 15.0), expected)


def test_earlier_keys_are_edits_whose_values_must_stay() -> None:
    (keys, residual), earlier = edits(7), normal(5, D_IN, seed=4)
    stacked = torch.cat([keys, earlier]), torch.cat([residual, torch.zeros(5, D_OUT).double()])
    expected = least_squares(*stacked, text_covariance(), 15.0)
    found = least_squares(keys, residual, text_covariance(), 15.0, gram(earlier))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


# ----------------------------------------------------------------------------------------------- EMMET


@pytest.mark.parametrize("n_keys", [5, 30])
@pytest.mark.parametrize("with_earlier", [False, True])
def test_emmet_is_its_printed_formula_in_both_forms(n_keys: int, with_earlier: bool) -> None:
    keys, residual = edits(n_keys)
    remembered = gram(normal(5, D_IN, seed=4)) if with_earlier else None
    metric = text_covariance() if remembered is None else text_covariance() + remembered / 15.0
    spread = torch.linalg.solve(metric, keys.T)
    expected = spread @ torch.linalg.solve(keys @ spread + 0.3 * torch.eye(n_keys).double(), residual)
    found = equality(keys, residual, text_covariance(), 15.0, 0.3, remembered)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def test_emmet_with_a_ridge_is_memit_with_that_weight() -> None:
    keys, residual = edits(5)
    found = equality(keys, residual, text_covariance(), 15.0, 0.3)
    torch.testing.assert_close(found, least_squares(keys, residual, text_covariance(), 0.3), atol=1e-10, rtol=1e-8)


def test_without_a_ridge_emmet_makes_every_edit_and_changes_text_least() -> None:
    """The solution of the constrained problem is that of the linear system of its Lagrangian (KKT)."""
    keys, residual = edits(5)
    covariance = text_covariance()
    corner = torch.zeros(5, 5).double()
    system = torch.cat([torch.cat([2 * covariance, keys.T], dim=1), torch.cat([keys, corner], dim=1)])  # (25, 25)
    expected = torch.linalg.solve(system, torch.cat([torch.zeros(D_IN, D_OUT).double(), residual]))[:D_IN]
    shift = equality(keys, residual, covariance, 15.0, 0.0)
    torch.testing.assert_close(shift, expected, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(keys @ shift, residual, atol=1e-11, rtol=1e-10)
    free = normal(D_IN, D_OUT, seed=6)
    free -= torch.linalg.pinv(keys) @ (keys @ free)  # no edit notices it
    changes = [torch.trace(s.T @ covariance @ s).item() for s in (shift + 0.1 * free, shift, shift - 0.1 * free)]
    assert changes[1] < min(changes[0], changes[2])


@pytest.mark.parametrize("n_keys", [6, 30])
def test_keys_that_depend_on_each_other_need_a_ridge(n_keys: int) -> None:
    keys, residual = edits(n_keys)
    keys = torch.cat([keys, keys[:1]])
    residual = torch.cat([residual, residual[:1]])
    with pytest.raises(ArithmeticError, match=r"larger memit\.ridge"):
        equality(keys, residual, text_covariance(), 15.0, 0.0)
    assert equality(keys, residual, text_covariance(), 15.0, 0.1).isfinite().all()


def test_a_singular_covariance_stops_emmet() -> None:
    with pytest.raises(ArithmeticError, match="more tokens"):
        equality(*edits(5), torch.zeros(D_IN, D_IN), 15.0, 0.1)


# ----------------------------------------------------------------------------------------------- AlphaEdit


@pytest.mark.parametrize("n_keys", [3, 40])
@pytest.mark.parametrize("with_earlier", [False, True])
def test_alphaedit_is_its_printed_formula_in_both_forms(n_keys: int, with_earlier: bool) -> None:
    keys, residual = edits(n_keys)
    remembered = gram(normal(5, D_IN, seed=4)) if with_earlier else None
    basis = null_space_basis(text_covariance(), 0.0, share=0.6)
    assert basis.shape == (D_IN, 12)
    torch.testing.assert_close(gram(basis), torch.eye(12).double(), atol=1e-12, rtol=0)
    projection = basis @ basis.T  # P
    protected = gram(keys) + (0 if remembered is None else remembered)
    system = projection @ protected + 10 * torch.eye(D_IN).double()
    expected = torch.linalg.solve(system, projection @ keys.T @ residual)
    found = null_space(keys, residual, basis, 10.0, remembered)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


def test_in_all_directions_and_hardly_regularised_it_is_least_squares() -> None:
    keys, residual = edits(40)
    basis = null_space_basis(text_covariance(), 0.0, share=1.0)
    found = null_space(keys, residual, basis, 1e-10)
    torch.testing.assert_close(found, torch.linalg.lstsq(keys, residual).solution, atol=1e-10, rtol=1e-8)
    exact = null_space(keys[:7], residual[:7], ALL, 1e-10)
    torch.testing.assert_close(keys[:7] @ exact, residual[:7], atol=1e-8, rtol=1e-8)


def test_no_key_of_ordinary_text_changes_its_value() -> None:
    keys, residual = edits(5)
    covariance = text_covariance(n_directions=8)
    basis = null_space_basis(covariance, threshold=1e-6)
    assert basis.shape == (D_IN, 12)
    preserved = normal(30, 8, seed=7) @ normal(8, D_IN, seed=3)
    shift = null_space(keys, residual, basis, 1e-3)
    assert shift.norm() > 0.1
    torch.testing.assert_close(preserved @ shift, torch.zeros(30, D_OUT).double(), atol=1e-11, rtol=0)
    protected = null_space(keys, residual, basis, 1e-3, gram(keys) * 1e6)
    assert (keys @ protected).norm() < 1e-4 * (keys @ shift).norm()


def test_the_threshold_and_the_share_count_directions_from_the_smallest() -> None:
    covariance = torch.diag(torch.tensor([5.0, 0.01, 0.03, 0.0, 1.0]))
    kept = [null_space_basis(covariance, 0.02), null_space_basis(covariance, 0.02, share=0.6)]
    assert [basis.shape[1] for basis in kept] == [2, 3]
    for basis, places in zip(kept, ([1, 3], [1, 2, 3]), strict=True):
        projection = torch.zeros(5, 5).double()
        projection[places, places] = 1
        torch.testing.assert_close(basis @ basis.T, projection, atol=1e-12, rtol=0)
    assert null_space_basis(covariance, 1e-3, share=0.01).shape == (5, 1)
    assert null_space_basis(covariance + torch.eye(5), 0.02).shape == (5, 0)
