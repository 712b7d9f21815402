"""Metrics files: what one editor reached on one model, for several numbers of edits m and seeds (section 5)."""

from pathlib import Path
from statistics import fmean
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from malmen.results.file import ResultFile, ResultPart

# Means of shares may leave [0, 1] by a rounding error, not by more: that would be another unit.
Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6, allow_inf_nan=False)]


class GroupMetrics(ResultPart):
    """The metrics of one group of m edits; shares between 0 and 1, but for the last."""

    ES: Share
    pre_ES: Share  # noqa: N815 - named as in the paper
    GS: Share
    pre_GS: Share  # noqa: N815
    LS: Share
    pre_LS: Share  # noqa: N815
    edit_success: Share | None = None
    """The share of edit and equivalent tuples that are right as a whole (Table 3)."""
    drawdown: Annotated[float, Field(ge=-1 - 1e-6, le=1 + 1e-6, allow_inf_nan=False)] | None = None
    """By how much the edit lowered the share of unrelated tuples that are right as a whole (Table 3)."""
    agreement: Share
    residual: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The mean residual MR (section 5.2); only of editors with a hyper-network."""


class RunMetrics(ResultPart):
    """All groups of m = ``n_edits`` edits with one seed, or the reason why there are none (the run diverged)."""

    n_edits: PositiveInt
    seed: int
    status: Literal["ok", "diverged"]
    reason: str | None
    groups: tuple[GroupMetrics, ...]
    file: Path = Field(default=Path(), exclude=True)
    """The file that the run was read from."""

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


class MetricsFile(ResultFile):
    """One editor on one model."""

    kind: ClassVar[str] = "metrics"

    model: str
    model_label: str
    dataset: str
    editor: str
    editor_label: str
    runs: Annotated[tuple[RunMetrics, ...], Field(min_length=1)]
