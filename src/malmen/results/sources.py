"""Where each number of a figure or table comes from: ``figure5.sources.json`` beside ``figure5.pdf``."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import AliasChoices, Field

from malmen.results.file import ResultFile, ResultPart
from malmen.runtime.files import sha256

SUFFIX = ".sources.json"
AS_PUBLISHED = "as published"


@dataclass(frozen=True)
class Origin:
    """Where a number was read.

    Attributes:
        file: a file of results or of published numbers.
        n_edits: the number of edits m of the run in it, and
        seed: its seed; None where the file holds no runs.
    """

    file: Path
    n_edits: int | None = None
    seed: int | None = None


class Shown(ResultPart):
    """Numbers that are shown of one thing and come from the same runs.

    Attributes:
        of: what they are of, such as an editor and a number of edits.
        values: the numbers, by the field of the files that they were read from; None where there is no number.
        how: how they were computed from the runs.
        runs: m and seed of each run, by file.
    """

    of: dict[str, str | int]
    values: dict[str, Any]
    how: str
    runs: dict[str, list[tuple[int, int]]] = Field(
        validation_alias=AliasChoices("runs", "from"), serialization_alias="from"
    )

    @classmethod
    def from_origins(
        cls, of: Mapping[str, str | int], values: Mapping[str, Any], how: str, origins: Iterable[Origin]
    ) -> Self:
        """Return numbers with the runs that they come from."""
        runs: dict[str, list[tuple[int, int]]] = {}
        for origin in sorted(set(origins), key=lambda one: (str(one.file), one.n_edits or 0, one.seed or 0)):
            found = runs.setdefault(origin.file.as_posix(), [])
            if origin.n_edits is not None and origin.seed is not None:
                found.append((origin.n_edits, origin.seed))
        return cls(of=dict(of), values=without_nan(values), how=how, runs=runs)


def without_nan(values: Any) -> Any:
    """Return values with None in place of NaN, which JSON does not have."""
    if isinstance(values, Mapping):
        return {key: without_nan(value) for key, value in values.items()}
    return None if isinstance(values, float) and math.isnan(values) else values


class SourcesFile(ResultFile):
    """The sources of one figure or table.

    Attributes:
        result: its name.
        files: SHA-256 of each file that was read.
        numbers: what it shows.
    """

    kind: ClassVar[str] = "sources"

    result: str
    files: dict[str, str]
    numbers: tuple[Shown, ...]

    @classmethod
    def of_numbers(cls, result: str, numbers: Iterable[Shown]) -> Self:
        """Return the sources of a figure or table that shows these numbers."""
        shown = tuple(numbers)
        files = sorted({file for item in shown for file in item.runs})
        return cls(result=result, files={file: sha256(Path(file)) for file in files}, numbers=shown)

    def in_one_line(self) -> str:
        """Return the content as it is put into a figure or table itself."""
        # Two hyphens would end a comment of HTML; as an escape they are the same text.
        return json.dumps(self.model_dump(by_alias=True), separators=(",", ":")).replace("--", "-\\u002d")


def anchor(result: str, place: int) -> str:
    """Return the anchor, on the lineage page, of a figure's or table's numbers at one place of its sources file."""
    return f"{result}.{place}"
