"""Editing in rounds: T groups of m edits, one after the other, into the same weights."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from malmen.config.base import Section, all_different


class Rounds(Section):
    """T rounds of m edits. With one round, all T m edits are made at once."""

    n_rounds: PositiveInt
    """T, the number of rounds."""
    n_edits: PositiveInt
    """m, the number of edits of each round."""
    after: list[PositiveInt] = []
    """The rounds after which all edits so far are measured; after the last one they always are."""

    @model_validator(mode="after")
    def _check(self) -> "Rounds":
        if sorted(set(self.after)) != self.after or (self.after and self.after[-1] > self.n_rounds):
            raise ValueError(f"after is {self.after} but must be rounds up to {self.n_rounds} in ascending order")
        return self

    @property
    def name(self) -> str:
        """Its name: ``8x64`` for 8 rounds of 64 edits."""
        return f"{self.n_rounds}x{self.n_edits}"

    @property
    def total(self) -> int:
        """The number of all edits, T m."""
        return self.n_rounds * self.n_edits

    @property
    def measured(self) -> list[int]:
        """The rounds after which all edits so far are measured, the last one among them."""
        return sorted({*self.after, self.n_rounds})


RoundsName = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]
"""The name of rounds, such as ``8x64``."""
RoundsNames = Annotated[list[RoundsName], AfterValidator(all_different)]
