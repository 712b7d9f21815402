"""What a job finds out while it works and its record keeps, beside what the job was told.

One process does one job, so there is one set of notes, which every part of the work can add to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Notes:
    """The notes of the job of this process.

    Attributes:
        batch_sizes: the physical batch sizes that were used, by what was divided ("auto" is resolved by then).
        uncertain_subjects: the subjects that MEMIT guessed without being certain, by the edit's id; empty if it found
            none.
        earlier_ranks: how many ranks worked on the job before it was interrupted, in turn; empty if it was not.
    """

    batch_sizes: dict[str, set[int]] = field(default_factory=dict)
    uncertain_subjects: dict[str, str] = field(default_factory=dict)
    earlier_ranks: list[int] = field(default_factory=list)

    def used(self, purpose: str, size: int) -> None:
        """Note a batch size."""
        self.batch_sizes.setdefault(purpose, set()).add(size)

    def resumed(self, numbers: list[int]) -> None:
        """Note how many ranks made a saved state, in turn; a job's last state has them all."""
        self.earlier_ranks = max(self.earlier_ranks, numbers, key=len)

    def in_turn(self, now: int) -> list[int]:
        """Return how many ranks worked on the job in turn, up to now; equal numbers that follow each other once."""
        return [*self.earlier_ranks, *([now] if self.earlier_ranks[-1:] != [now] else [])]

    @classmethod
    def of_all(cls, noted: "Iterable[Notes]") -> "Notes":
        """Return what any of the processes that share a job noted about batches and subjects."""
        found = cls()
        for notes in noted:
            found.uncertain_subjects |= notes.uncertain_subjects
            for purpose, sizes in notes.batch_sizes.items():
                found.batch_sizes[purpose] = found.batch_sizes.get(purpose, set()) | sizes
        return found

    def clear(self) -> None:
        """Forget everything: another job begins."""
        self.batch_sizes.clear()
        self.uncertain_subjects.clear()
        self.earlier_ranks.clear()


NOTES = Notes()
