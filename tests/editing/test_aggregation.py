"""The normal equation and its backward pass against generic solvers and autograd."""

import pytest
import torch
from torch import Tensor

from malmen.editing.aggregation import NormalEquation, SingularSystemError

SHAPES = {"n<d": (4, 7), "n>d": (20, 7), "n=1": (1, 7), "n=d": (7, 7)}


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rank_deficient() -> Tensor:
    keys = random(12, 7)
    keys[:, 0] = keys[:, 1] - 2 * keys[:, 2]
    return keys


KEYS = [pytest.param(random(*size), id=name) for name, size in SHAPES.items()]
KEYS.append(pytest.param(rank_deficient(), id="rank-deficient"))


@pytest.mark.parametrize("regularisation", [0.01, 1.0])
@pytest.mark.parametrize("keys", KEYS)
def test_the_shift_is_the_least_squares_solution_of_the_augmented_system(keys: Tensor, regularisation: float) -> None:
    differences = random(len(keys), 3, seed=1)
    augmented = torch.cat((keys, regularisation**0.5 * torch.eye(7, dtype=keys.dtype)))
    right = torch.cat((differences, torch.zeros(7, 3, dtype=keys.dtype)))
    expected = torch.linalg.lstsq(augmented, right, driver="gelsd").solution
    torch.testing.assert_close(
        NormalEquation.of(keys, regularisation).shift(differences), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("keys", KEYS)
def test_the_backward_pass_is_autograds(keys: Tensor) -> None:
    differences = random(len(keys), 3, seed=1).requires_grad_()
    regularisation = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    gradient = random(7, 3, seed=2)
    shift = torch.linalg.solve(keys.T @ keys + regularisation * torch.eye(7, dtype=keys.dtype), keys.T @ differences)
    expected = torch.autograd.grad((gradient * shift).sum(), (differences, regularisation))
    equation = NormalEquation.of(keys, 0.5)
    shift = equation.shift(differences.detach())
    to_differences, to_regularisation = equation.backward(gradient, shift, differences.detach())
    torch.testing.assert_close((to_differences[:], to_regularisation), expected, rtol=1e-10, atol=1e-12)


def test_the_dual_form_needs_keys_times_gradient_only() -> None:
    keys, differences, gradient = random(4, 7), random(4, 3, seed=1), random(7, 3, seed=2)
    equation = NormalEquation.of(keys, 0.5)
    shift = equation.shift(differences)
    found = equation.backward(keys @ gradient, shift, differences, projected=True)
    torch.testing.assert_close(found, equation.backward(gradient, shift, differences), rtol=1e-12, atol=1e-14)


def solved(keys: Tensor, regularisation: float, dual: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return shift, dL/dD and dL/dlambda in one form of the system."""
    d_in = keys.shape[1]
    differences, gradient = random(len(keys), 3, seed=1).to(keys.dtype), random(d_in, 3, seed=2).to(keys.dtype)
    equation = NormalEquation.of(keys, regularisation, dual)
    assert len(equation.factor) == (len(keys) if dual else d_in)
    shift = equation.shift(differences)
    to_differences, to_regularisation = equation.backward(gradient, shift, differences)
    return shift, to_differences[:], to_regularisation


# Rounding is multiplied by the square of the systems' condition, which is near 1e3 and 1e1.
@pytest.mark.parametrize("regularisation, tolerance", [(0.01, 1e-9), (1.0, 1e-12)])
@pytest.mark.parametrize("keys", KEYS)
def test_the_dual_form_gives_the_same(keys: Tensor, regularisation: float, tolerance: float) -> None:
    for plain, dual in zip(solved(keys, regularisation, False), solved(keys, regularisation, True), strict=True):
        assert (dual - plain).norm() <= tolerance * plain.norm()


@pytest.mark.parametrize("regularisation", [0.1, 1.0])
def test_the_dual_form_gives_the_same_in_float32(regularisation: float) -> None:
    keys = random(30, 200)
    dual = solved(keys.float(), regularisation, True)
    for plain, single in zip(solved(keys, regularisation, False), dual, strict=True):
        assert single.dtype == torch.float32
        assert (single - plain).norm() <= 5e-6 * plain.norm()


@pytest.mark.parametrize("length", [1.0, 30.0, 100.0])
@pytest.mark.parametrize("rank", [None, 60])
def test_what_float32_keys_get_is_as_exact_as_float32_where_rows_are_few(length: float, rank: int | None) -> None:
    """K S, also of long keys that are nearly dependent: 1e-2 in float32's dual form, 1e-4 in its larger system."""
    keys = random(150, 400) if rank is None else random(150, rank) @ random(rank, 400, seed=3)
    keys += 1e-3 * keys.norm() / keys.numel() ** 0.5 * random(*keys.shape, seed=4)
    keys = (keys * length / keys.norm(dim=1, keepdim=True)).float()
    differences = random(150, 20, seed=1).float()
    equation = NormalEquation.of(keys, 1.0)
    assert equation.dual
    shift = equation.shift(differences)
    precise = keys.double()
    expected = precise.T @ torch.linalg.solve(precise @ precise.T + torch.eye(150), differences.double())
    assert (shift - expected).norm() <= 1e-7 * expected.norm()
    assert (precise @ (shift - expected)).norm() <= 1e-6 * (precise @ expected).norm()


@pytest.mark.parametrize("n, regularisation, dual", [(6, 1.0, True), (7, 1.0, False), (20, 1.0, False)])
def test_the_dual_form_is_chosen_where_it_is_smaller(n: int, regularisation: float, dual: bool) -> None:
    assert NormalEquation.of(random(n, 7), regularisation).dual == dual


def test_a_hand_example_in_which_the_transpose_dropped_by_algorithm_2_matters() -> None:
    equation = NormalEquation.of(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 1.0)  # K^T K + I = diag(2, 5)
    shift = equation.shift(torch.tensor([[2.0, 4.0], [7.5, 10.0]]))
    torch.testing.assert_close(shift, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    to_differences, to_regularisation = equation.backward(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), shift)
    # M = [[0, 1], [0, 0]], so <M, S> = tr(M^T S) = 2, while tr(M S) = 3.
    torch.testing.assert_close(to_differences[:], torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(to_regularisation, torch.tensor(-2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, d", [(1, 2), (5, 6), (63, 64), (8, 64)])
def test_fewer_keys_than_dimensions_are_singular_without_regularisation(n: int, d: int, dtype: torch.dtype) -> None:
    for seed in range(10):
        with pytest.raises(SingularSystemError, match=f"{n} keys in {d} dimensions"):
            NormalEquation.of(random(n, d, seed=seed).to(dtype), 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keys_that_do_not_span_their_space_are_singular_without_regularisation(dtype: torch.dtype) -> None:
    for seed in range(20):
        keys = random(30, 16, seed=seed).to(dtype)
        keys[:, 3] = keys[:, 1] + keys[:, 2]
        with pytest.raises(SingularSystemError):
            NormalEquation.of(keys, 0.0)


def test_keys_that_span_their_space_need_no_regularisation() -> None:
    keys, differences = random(20, 7), random(20, 3, seed=1)
    expected = torch.linalg.lstsq(keys, differences).solution
    torch.testing.assert_close(NormalEquation.of(keys, 0.0).shift(differences), expected)


def test_a_key_that_is_not_a_number_is_singular() -> None:
    keys = random(4, 3)
    keys[1, 1] = torch.nan
    with pytest.raises(SingularSystemError):
        NormalEquation.of(keys, 1.0)
