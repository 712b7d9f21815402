"""Reading metrics files, the only input of figures and tables, into one long table.

A metrics file holds what one editor reached on one model, for several numbers of edits m and seeds (paper, section 5;
metrics are shares between 0 and 1).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from malmen.errors import UserError
from malmen.figures.reading import read_result
from malmen.runtime.files import write_text

METRICS = ("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement")
"""Edit, generalisation and locality success, the same before the edit, and agreement with the unedited model."""

COLUMNS = ("model", "dataset", "editor", "n_edits", "seed", "metric", "value")

# Means of shares may leave [0, 1] by a rounding error, not by more: that would be another unit.
Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6, allow_inf_nan=False)]


class Group(BaseModel):
    """The metrics of one group of m edits."""

    model_config = ConfigDict(frozen=True)

    ES: Share
    GS: Share
    LS: Share
    pre_ES: Share  # noqa: N815 - named as in the paper
    pre_GS: Share  # noqa: N815
    pre_LS: Share  # noqa: N815
    edit_success: Share | None = None
    """The share of edit and equivalent tuples that are right as a whole (Table 3)."""
    drawdown: Annotated[float, Field(ge=-1 - 1e-6, le=1 + 1e-6, allow_inf_nan=False)] | None = None
    """By how much the edit lowered the share of unrelated tuples that are right as a whole (Table 3)."""
    agreement: Share
    residual: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The mean residual MR (section 5.2); only of editors with a hyper-network."""


class Run(BaseModel):
    """All groups of m = ``n_edits`` edits with one seed, or the reason why there are none (a diverged training)."""

    model_config = ConfigDict(frozen=True)

    n_edits: PositiveInt
    seed: int
    status: Literal["ok", "diverged"]
    reason: str | None
    groups: tuple[Group, ...]
    file: Path = Field(default=Path(), exclude=True)
    """Where it was read."""

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        if self.status == "ok" and not self.groups:
            raise ValueError("a run with status 'ok' needs at least one group")
        if self.status == "diverged" and (self.groups or not self.reason):
            raise ValueError("a run with status 'diverged' needs a reason and no groups")
        return self

    def mean(self, metric: str) -> float:
        """Return the mean of ``metric`` over the groups, NaN if the run diverged or its editor has no such metric."""
        values = [getattr(group, metric) for group in self.groups]
        return fmean(values) if values and None not in values else float("nan")


class EditorMetrics(BaseModel):
    """The content of one metrics file: one editor on one model."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    model_label: str
    dataset: str
    editor: str
    editor_label: str
    runs: Annotated[tuple[Run, ...], Field(min_length=1)]

    @property
    def first_run(self) -> tuple[int, int]:
        """Seed and m of the first run in their order; files of one editor are sorted by it."""
        return min((run.seed, run.n_edits) for run in self.runs)


def read_metrics(paths: Sequence[Path], n_edits: Collection[int] | None = None) -> list[EditorMetrics]:
    """Read metrics files, sorted by model, dataset and editor, whatever the order of ``paths``.

    Args:
        paths: the files.
        n_edits: leave out runs with other numbers of edits, and files without any of these; all are kept if None.

    Raises:
        UserError: naming the file that is missing, malformed, or repeats a measurement of another file.
    """
    files: list[EditorMetrics] = []
    origin: dict[tuple[str, str, str, int, int], Path] = {}
    for path in paths:
        item = read_result(path, EditorMetrics, "metrics")
        chosen = (run for run in item.runs if n_edits is None or run.n_edits in n_edits)
        runs = tuple(run.model_copy(update={"file": path}) for run in chosen)
        if not runs:
            continue
        item = item.model_copy(update={"runs": runs})
        for run in item.runs:
            key = (item.model, item.dataset, item.editor, run.seed, run.n_edits)
            if key in origin:
                raise UserError(
                    f"{path} repeats the measurement of {item.editor} on {item.model} with seed {run.seed} and "
                    f"m = {run.n_edits} found in {origin[key]}; give each file once."
                )
            origin[key] = path
        files.append(item)
    return sorted(files, key=lambda item: (item.model, item.dataset, item.editor, item.first_run))


def long_form(files: Sequence[EditorMetrics], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Return one row per measurement, with the columns :data:`COLUMNS`; ``value`` is a seed's mean over its groups.

    The last column, which is not for printing, is the ``file`` that it was read from.

    The rows are sorted by all columns but the value, metrics in the order given. A diverged run has rows with an empty
    (NaN) value, and so has an editor without the metric.
    """
    rows = [
        (item.model, item.dataset, item.editor, run.n_edits, run.seed, metric, run.mean(metric), str(run.file))
        for item in files
        for run in item.runs
        for metric in metrics
    ]
    # The sort is stable, so the metrics of one measurement keep their order.
    rows.sort(key=lambda row: row[:5])
    return pd.DataFrame(rows, columns=[*COLUMNS, "file"]).astype({"n_edits": int, "seed": int, "value": float})


def load_metrics(paths: Sequence[Path]) -> pd.DataFrame:
    """Read metrics files into the table that :func:`long_form` describes, without the files.

    Raises:
        UserError: naming the file that is missing, malformed, or repeats a measurement of another file.
    """
    return long_form(read_metrics(paths))[list(COLUMNS)]


def of_seeds(failed: int, total: int) -> str:
    """Say how many seeds diverged: ``2 of 3 seeds``."""
    return f"{failed} of {total} seed{'' if total == 1 else 's'}"


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` so that equal tables give equal bytes everywhere and every number is read back exactly."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
