"""A layer's normal equation whose rows lie on several ranks: each sums over its own rows, and one of them solves.

Rank r has n_r of the layer's n rows, K_r, (n_r, d_in), and D_r, (n_r, d_out). The layer has an *owner*, the rank that
factorises its system and keeps the factor (:mod:`malmen.editing.aggregation`). With A = K^T K + lambda I,

    K^T K = sum K_r^T K_r  and  K^T D = sum K_r^T D_r  go to the owner;      S = A^-1 K^T D          goes to all;
    G = dL/dS = sum G_r                               goes to the owner;      M = A^-1 G              goes to all;
    dL/dD_r = K_r M.

In the dual form there are fewer rows than dimensions, so the rows themselves go to the owner: K and D, and back P, of
which each rank takes its own rows. What takes long (forming sums, factorising, solving) are steps of their own, so that
owners of several layers work at the same time, and sums move while others are formed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from malmen.editing.aggregation import NormalEquation, Product, gram_of, smaller_if_dual
from malmen.editing.rows import Rows, whole
from malmen.errors import DivergedError
from malmen.models.batching import whole_in_memory
from malmen.runtime.ranks import Sum, ranks


@dataclass
class SharedEquation:
    """The system of one layer. Alone, its only rank is the owner, and nothing moves.

    The order of calls is :meth:`begin` and :meth:`factorise`; then :meth:`take`, :meth:`solve` and :meth:`shift`; then,
    as often as wanted, :meth:`take_gradient`, :meth:`solve_back` and :meth:`to_differences`. All ranks call in the same
    order those that move something, the first and the last of each; the others are local.

    Attributes:
        layer: its name, for messages.
        keys: K_r, (n_r, d_in).
        shape: (d_in, d_out).
        regularisation: lambda >= 0.
        counts: n_r of each rank.
        owner: the rank that solves.
        dual: whether the system is solved in its dual form; None: if that is smaller.
        all_keys: in the dual form K, (n, d_in), where it is needed: on the owner, and everywhere if ``projects``.
        equation: the factorised system, on the owner.
    """

    layer: str
    keys: Rows
    shape: tuple[int, int]
    regularisation: float
    counts: Sequence[int]
    owner: int = 0
    dual: bool | None = None
    all_keys: Rows | None = None
    equation: NormalEquation | None = None
    _sum: Sum | None = None
    _right: Tensor | None = None
    _differences: Tensor | None = None
    _found: Tensor | None = None
    _to_regularisation: Tensor | None = None

    def __post_init__(self) -> None:
        if self.dual is None:
            self.dual = smaller_if_dual(torch.Size((self.n, self.shape[0])), self.regularisation)

    def begin(self) -> None:
        """Form this rank's part of the Gram matrix and send it to the owner; in the dual form, send the keys.

        Raises:
            DoesNotFitError: if memory does not hold the matrix.
        """
        if self.dual:
            every = self.keys if ranks().alone else ranks().all_rows(whole(self.keys), self.counts)
            self.all_keys = every if self.here or self.projects else None
            return
        with self.in_memory():
            gram = gram_of(self.keys, dual=False)
        self._sum = ranks().sum_at(gram, self.owner)

    @property
    def here(self) -> bool:
        """Whether this rank is the owner."""
        return ranks().rank == self.owner

    @property
    def n(self) -> int:
        """The number of rows of all ranks."""
        return sum(self.counts)

    @property
    def projects(self) -> bool:
        """Whether the backward pass takes K G, (n, d_out), in place of G, (d_in, d_out), since few rows need less."""
        d_in, d_out = self.shape
        return bool(self.dual) and self.n * (d_in + d_out) < d_in * d_out

    @contextmanager
    def in_memory(self) -> Iterator[None]:
        """Name the layer where memory does not hold its system."""
        with whole_in_memory(f"The normal equation of layer {self.layer}"):
            yield

    def factorise(self) -> None:
        """On the owner, factorise the system.

        Raises:
            DivergedError: if it is singular.
            DoesNotFitError: if memory does not hold it.
        """
        gram = self._sum.wait() if self._sum else None
        self._sum = None
        if not self.here:
            return
        try:
            with self.in_memory():
                if gram is None:
                    assert self.all_keys is not None
                    self.equation = NormalEquation.of(self.all_keys, self.regularisation, dual=True)
                else:
                    self.equation = NormalEquation.of_gram(gram, self.keys, self.regularisation, False, self.n)
        except ArithmeticError as error:
            raise DivergedError(f"in layer {self.layer}, {error}") from None

    # From value differences to the shift.

    def take(self, right: Tensor) -> None:
        """Send this rank's part of the right-hand side to the owner: K_r^T D_r, (d_in, d_out), or, if dual, D_r."""
        if self.dual:
            differences = ranks().all_rows(right, self.counts)  # D, (n, d_out)
            self._differences = differences if self.here else None
        else:
            self._sum = ranks().sum_at(right, self.owner)
        self._right = right

    def solve(self) -> None:
        """On the owner, solve for S."""
        right = self._sum.wait() if self._sum else self._differences
        self._sum = None
        if self.equation is not None:
            assert right is not None
            self._found = self.equation.shift(right) if self.dual else self.equation.solve(right)

    def shift(self) -> Tensor:
        """Return S, (d_in, d_out), on all ranks.

        Raises:
            DivergedError: if it is not finite.
        """
        shift = self.from_owner(self.shape)
        if not shift.isfinite().all():
            raise DivergedError(f"the shift of layer {self.layer} is not finite")
        return shift

    # From the gradient to the shift to that to the value differences.

    def take_gradient(self, gradient: Tensor) -> None:
        """Send this rank's part of G, (d_in, d_out), or of K G, (n, d_out), if it ``projects``, to the owner."""
        self._sum, self._right = ranks().sum_at(gradient, self.owner), gradient

    def solve_back(self, shift: Tensor) -> None:
        """On the owner, solve for M, (d_in, d_out), or, if dual, for P, (n, d_out); ``shift`` is S, (d_in, d_out)."""
        assert self._sum is not None
        gradient = self._sum.wait()
        self._sum = None
        if self.equation is not None:
            assert gradient is not None
            to_differences, self._to_regularisation = self.equation.backward(
                gradient, shift, self._differences, projected=self.projects
            )
            self._found = to_differences.m if isinstance(to_differences, Product) else to_differences

    def to_differences(self) -> tuple[Tensor | Product, Tensor | None]:
        """Return dL/dD_r, (n_r, d_out), of which slices can be taken; on the owner also dL/dlambda, a scalar."""
        found = self.from_owner((self.n, self.shape[1]) if self.dual else self.shape)
        to_regularisation, self._to_regularisation = self._to_regularisation, None
        if self.dual:
            return found[self.own_rows], to_regularisation
        return Product(self.keys, found), to_regularisation

    @property
    def own_rows(self) -> slice:
        """Where this rank's rows stand among those of all ranks."""
        ends = [0]
        for count in self.counts:
            ends.append(ends[-1] + count)
        return [slice(*pair) for pair in pairwise(ends)][ranks().rank]

    def from_owner(self, shape: Sequence[int]) -> Tensor:
        """Send what the owner found, of a shape, to all ranks, and return it."""
        assert self._right is not None
        found = self._right.new_empty(shape) if self._found is None else self._found
        self._found = self._right = None
        return ranks().from_owner(found, self.owner)
