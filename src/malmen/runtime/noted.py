"""What a job finds out while it works and its record keeps, beside what the job was told.

One process does one job, so there is one set of notes, which every part of the work can add to.
"""

from dataclasses import dataclass, field


@dataclass
class Notes:
    """The notes of the job of this process.

    Attributes:
        batch_sizes: the physical batch sizes that were used, by what was divided ("auto" is resolved by then).
        uncertain_subjects: the subjects that MEMIT guessed without being certain, by the edit's id; empty if it found
            none.
    """

    batch_sizes: dict[str, set[int]] = field(default_factory=dict)
    uncertain_subjects: dict[str, str] = field(default_factory=dict)

    def used(self, purpose: str, size: int) -> None:
        """Note a batch size."""
        self.batch_sizes.setdefault(purpose, set()).add(size)

    def clear(self) -> None:
        """Forget everything: another job begins."""
        self.batch_sizes.clear()
        self.uncertain_subjects.clear()


NOTES = Notes()
