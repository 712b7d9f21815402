"""Where each plotted or printed number comes from: written beside a figure or table, and into it.

``figure5.sources.json`` maps what is shown to the runs it was computed from. The same text stands in the PDF's subject,
in the PNG's text ``Sources``, and in a comment of HTML and LaTeX, so that a figure that travels alone still says it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

from malmen.figures.reading import read_result
from malmen.runtime.files import beside, sha256, write_text

SUFFIX = ".sources.json"
OVER_SEEDS = "mean and sample standard deviation over seeds of each run's mean over its groups"
AS_PUBLISHED = "as published"
AS_MEASURED = "as measured"


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


@dataclass(frozen=True)
class Shown:
    """Numbers that are shown of one thing and come from the same runs.

    Attributes:
        of: what they are of, such as an editor and a number of edits.
        values: the numbers, by the field of the files that they were read from.
        how: how they were computed from the runs.
        origins: the runs.
    """

    of: Mapping[str, str | int]
    values: Mapping[str, Any]
    how: str
    origins: tuple[Origin, ...]

    def content(self) -> dict[str, Any]:
        """Return it for JSON; files with their runs, each as m and seed."""
        runs: dict[str, list[list[int]]] = {}
        for origin in sorted(set(self.origins), key=lambda one: (str(one.file), one.n_edits or 0, one.seed or 0)):
            found = runs.setdefault(origin.file.as_posix(), [])
            if origin.n_edits is not None and origin.seed is not None:
                found.append([origin.n_edits, origin.seed])
        return {"of": dict(self.of), "values": without_nan(self.values), "how": self.how, "from": runs}


def without_nan(values: Any) -> Any:
    """Return values with null in place of NaN, which JSON does not have."""
    if isinstance(values, Mapping):
        return {key: without_nan(value) for key, value in values.items()}
    return None if isinstance(values, float) and math.isnan(values) else values


def curve_points(values: pd.DataFrame, by: Sequence[str] = ("editor", "n_edits")) -> list[Shown]:
    """Return what a curve shows: each metric's mean and sample standard deviation over seeds.

    Args:
        values: what :func:`malmen.figures.metrics.long_form` returned.
        by: the columns that tell what is shown apart.
    """
    shown = []
    for key, rows in values.groupby(list(by)):
        spread = rows.groupby("metric", sort=False)["value"].agg(["mean", "std"])
        shown.append(
            Shown(
                of={name: plain(value) for name, value in zip(by, key, strict=True)},
                values={str(metric): {"mean": row["mean"], "std": row["std"]} for metric, row in spread.iterrows()},
                how=OVER_SEEDS,
                origins=origins(rows),
            )
        )
    return shown


def origins(rows: pd.DataFrame) -> tuple[Origin, ...]:
    """Return the runs that rows of :func:`malmen.figures.metrics.long_form` come from."""
    columns = rows[["file", "n_edits", "seed"]].drop_duplicates().itertuples(index=False)
    return tuple(Origin(Path(file), int(n_edits), int(seed)) for file, n_edits, seed in columns)


def plain(value: Any) -> Any:
    """Return a number of pandas as one of Python."""
    return value.item() if hasattr(value, "item") else value


def sources_of(stem: Path, shown: Iterable[Shown]) -> dict[str, Any]:
    """Return the content of ``stem.sources.json``: the files that were read, with SHA-256, and what is shown."""
    numbers = [item.content() for item in shown]
    files = sorted({file for number in numbers for file in number["from"]})
    return {"result": stem.name, "files": {file: sha256(Path(file)) for file in files}, "numbers": numbers}


def write_sources(stem: Path, sources: Mapping[str, Any]) -> None:
    """Write ``stem.sources.json``."""
    write_text(beside(stem, SUFFIX), json.dumps(sources, indent=1) + "\n")


class NumbersOfFile(BaseModel):
    """What :meth:`Shown.content` returned."""

    of: dict[str, str | int]
    values: dict[str, Any]
    how: str
    runs: dict[str, list[tuple[int, int]]] = Field(alias="from")


class SourcesFile(BaseModel):
    """What :func:`write_sources` wrote, without the digests of the files, which records hold too."""

    result: str
    numbers: list[NumbersOfFile]


def read_sources(path: Path) -> dict[str, Any]:
    """Read what :func:`write_sources` wrote.

    Raises:
        UserError: if the file is missing or malformed.
    """
    return read_result(path, SourcesFile, "sources").model_dump(by_alias=True)


def in_one_line(sources: Mapping[str, Any]) -> str:
    """Return sources as they are put into a figure or table itself."""
    # Two hyphens would end a comment of HTML; as an escape they are the same text.
    return json.dumps(sources, separators=(",", ":")).replace("--", "-\\u002d")
