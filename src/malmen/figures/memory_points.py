"""Reading the measurements of a meta-step's peak memory, which :mod:`malmen.jobs.measure_memory` makes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from malmen.figures.reading import read_result


class Point(BaseModel):
    """What one process measured; ``n_edits`` is 0 for the one that has only loaded the model."""

    model_config = ConfigDict(frozen=True)

    computation: Literal["loaded", "separated", "concatenated"]
    n_edits: NonNegativeInt
    status: Literal["ok", "over the limit"]
    peak_bytes: PositiveInt | None
    seconds: float | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.status == "ok") != (self.peak_bytes is not None):
            raise ValueError("a point has peak_bytes if and only if its status is 'ok'")
        return self


class MemoryFile(BaseModel):
    """What :func:`malmen.jobs.measure_memory.write_memory` wrote: the points of one model, the one ``loaded`` first."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    model_label: str
    device: str
    limit_bytes: PositiveInt | None
    points: Annotated[tuple[Point, ...], Field(min_length=2)]

    @property
    def loaded_bytes(self) -> int:
        """Peak memory of a process that has only loaded the model."""
        return next(point.peak_bytes or 0 for point in self.points if point.computation == "loaded")

    def steps(self, computation: str) -> list[Point]:
        """Return the meta-steps of one computation, by number of edits."""
        chosen = [point for point in self.points if point.computation == computation]
        return sorted(chosen, key=lambda point: point.n_edits)


def read_memory(path: Path) -> MemoryFile:
    """Read the measurements.

    Raises:
        UserError: if the file is missing or malformed.
    """
    return read_result(path, MemoryFile, "memory")
