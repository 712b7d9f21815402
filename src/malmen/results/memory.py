"""Measurements of a meta-step's peak memory (Figure 9)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from malmen.results.file import ResultFile, ResultPart

Computation = Literal["loaded", "separated", "concatenated"]
"""What a process does: only load the model, or take a meta-step with one of the two ways to its gradient."""


class MemoryPoint(ResultPart):
    """What one process measured; ``n_edits`` is 0 for the one that only loads the model."""

    computation: Computation
    n_edits: NonNegativeInt
    status: Literal["ok", "over the limit"]
    peak_bytes: PositiveInt | None
    seconds: float | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.status == "ok") != (self.peak_bytes is not None):
            raise ValueError("a point has peak_bytes if and only if its status is 'ok'")
        return self


class MemoryFile(ResultFile):
    """The points of one model on one machine, the one ``loaded`` first."""

    kind: ClassVar[str] = "memory"

    model: str
    model_label: str
    device: str
    limit_bytes: PositiveInt | None
    points: Annotated[tuple[MemoryPoint, ...], Field(min_length=2)]

    def steps(self, computation: str) -> list[MemoryPoint]:
        """Return the meta-steps of one computation, by number of edits."""
        chosen = [point for point in self.points if point.computation == computation]
        return sorted(chosen, key=lambda point: point.n_edits)
