"""What identifies one run of an editor."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Run:
    """One run of an editor: the number of edits m, and the seed of all its draws."""

    n_edits: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"m{self.n_edits}_seed{self.seed}"


def runs(n_edits: Iterable[int], seeds: Iterable[int]) -> list[Run]:
    """Return a run for each number of edits with each seed."""
    return [Run(m, seed) for m, seed in product(n_edits, seeds)]
