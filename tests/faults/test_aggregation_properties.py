"""The normal equation on matrices of any shape, rank and scale: solved to working precision, or refused."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability import record

from malmen.editing.aggregation import NormalEquation, SingularSystemError
from malmen.editing.rows import whole

EPSILON = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny


@st.composite
def systems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Keys (n, d), value differences (n, k) and a regularisation: of any rank, of scales from tiny to huge."""
    n, d, k = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 5))
    rank = draw(st.integers(0, min(n, d)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    left, right, differences = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((n, rank), (rank, d), (n, k))
    )
    scale, other = (10.0 ** draw(st.integers(-150, 150)) for _ in range(2))
    regularisation = draw(st.sampled_from([0.0, 1e-300, 1e-12, 1.0, 1e12, 1e300]))
    return scale * left @ right, other * differences, regularisation


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(systems())
def test_any_system_is_solved_or_refused(system: tuple[torch.Tensor, torch.Tensor, float]) -> None:
    keys, differences, regularisation = system
    injected = "1 to 12 rows and columns, any rank, scales from 1e-150 to 1e150, with regularisation and without"
    record("a normal equation of any kind", injected, 1, "solved to working precision, or refused as singular")
    try:
        equation = NormalEquation.of(keys, regularisation)
    except SingularSystemError as error:
        assert f"of {keys.shape[0]} keys in {keys.shape[1]} dimensions is singular" in str(error)
        return
    assert whole(equation.factor).isfinite().all()
    # In the form in which it is solved: (K K^T + lambda I) X = D, or (K^T K + lambda I) X = K^T D.
    right = differences if equation.dual else keys.T @ differences
    gram = keys @ keys.T if equation.dual else keys.T @ keys
    gram.diagonal().add_(regularisation)
    solved = equation.solve(right)
    if not (right.isfinite().all() and solved.isfinite().all()):
        return  # Beyond the range of numbers: the editor refuses a shift that is not finite.
    size = len(gram)
    # Of largest entries, since the squares in a norm could leave the range of numbers.
    missed, largest, most, asked = (matrix.abs().max() for matrix in (gram @ solved - right, gram, solved, right))
    # Numbers below the normal range have fewer digits.
    bound = 100 * size**3 * (EPSILON * (largest * most + asked) + TINY * largest + TINY)
    assert missed <= bound or not bound.isfinite()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(systems(), st.sampled_from([1e-3, 1.0, 1e3]))
def test_both_forms_give_the_same(system: tuple[torch.Tensor, torch.Tensor, float], relative: float) -> None:
    keys, differences, _ = system
    scale = float(keys.square().sum())
    if not 1e-100 < scale < 1e100:
        return
    primal, dual = (NormalEquation.of(keys, relative * scale, dual=dual) for dual in (False, True))
    shifts = primal.shift(differences), dual.shift(differences)
    torch.testing.assert_close(*shifts, rtol=1e-9, atol=1e-9 * float(differences.abs().max()) / scale**0.5)
    gradient = torch.ones_like(shifts[0])
    first, second = primal.backward(gradient, shifts[0], differences), dual.backward(gradient, shifts[1], differences)
    torch.testing.assert_close(first[0][:], second[0][:], rtol=1e-8, atol=1e-8 * scale**-0.5)
