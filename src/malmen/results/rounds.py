"""Rounds files: what one editor reached on one model when it edited in rounds; and what that cost.

A run makes T rounds of m edits into the same weights, and measures all edits so far after some of them.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, RootModel, model_validator

from malmen.results.file import ResultFile, ResultPart


@dataclass(frozen=True)
class Measure:
    """What a number in a rounds file is.

    Attributes:
        label: its name in tables.
        about: what it is, in a sentence.
        unit: "share" (0..1, printed in percent), or "number".
        higher: whether a higher value is better.
    """

    label: str
    about: str
    unit: Literal["share", "number"] = "share"
    higher: bool = True


MEASURES: dict[str, Measure] = {
    "ES": Measure("ES", "share of answer tokens of the edits that are right under teacher forcing"),
    "GS": Measure("GS", "the same of the equivalent prompts"),
    "LS": Measure("LS", "the same of the unrelated tuples, against their stated answers"),
    "agreement": Measure(
        "LS, agreement", "share of answer tokens of the unrelated tuples whose prediction is that of the unedited model"
    ),
    "own_ES": Measure(
        "ES, own prefix",
        "share of answer tokens of the edits that are right if the model reads its own earlier tokens, not the right "
        "ones; it decodes as many as the answer has",
    ),
    "own_GS": Measure("GS, own prefix", "the same of the equivalent prompts"),
    "own_LS": Measure("LS, own prefix", "the same of the unrelated tuples, against their stated answers"),
    "own_agreement": Measure(
        "agreement, own prefix", "share of unrelated tuples of which all these tokens are those of the unedited model"
    ),
    "free_ES": Measure(
        "ES, free",
        "share of edits whose answer the model gives by itself: the first line that it decodes greedily, up to an end "
        "of the sequence, is the answer, but for case, punctuation and articles",
    ),
    "free_GS": Measure("GS, free", "the same of the equivalent prompts"),
    "free_LS": Measure("LS, free", "the same of the unrelated tuples, against their stated answers"),
    "free_agreement": Measure(
        "agreement, free", "share of unrelated tuples of which the model says what the unedited model says"
    ),
    "larger_logit_ES": Measure(
        "ES, larger logit",
        "share of tokens of the new answer whose logit is larger than that of the true answer's token at the same "
        "place, both after the new answer's earlier tokens",
    ),
    "larger_logit_GS": Measure("GS, larger logit", "the same of the equivalent prompts"),
    "larger_logit_LS": Measure(
        "LS, larger logit", "the same of the unrelated tuples: their stated answer against the edit's new answer"
    ),
    "likelier_ES": Measure(
        "ES, likelier",
        "share of edits whose new answer has a smaller mean negative log-likelihood per token than the true answer",
    ),
    "likelier_GS": Measure("GS, likelier", "the same of the equivalent prompts"),
    "likelier_LS": Measure(
        "LS, likelier", "the same of the unrelated tuples: their stated answer against the edit's new answer"
    ),
    "perplexity": Measure("perplexity", "exp of the mean negative log-likelihood of held-out text", "number", False),
}
"""The measures by the names that rounds files give them; of the unedited model, with ``pre_`` before the name."""
UNEDITED = "unedited"
"""The key of the unedited model's row in tables of rounds."""


class Measured(ResultPart):
    """All edits of the rounds so far, measured.

    Attributes:
        after: how many rounds were made.
        n_edits: how many edits were measured, all so far.
        values: the measures by their names in :data:`MEASURES`, those of the unedited model with ``pre_`` before it.
    """

    after: PositiveInt
    n_edits: PositiveInt
    values: dict[str, Annotated[float, Field(allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in self.values:
            if name.removeprefix("pre_") not in MEASURES:
                raise ValueError(f"unknown measure {name!r}")
        return self


class RoundsRun(ResultPart):
    """T rounds of m edits with one seed.

    Attributes:
        n_rounds: T.
        n_edits: m.
        seed: of all draws.
        status: "ok", or "diverged": a weight or an output was not finite.
        reason: in which round, and why; None if it did not diverge.
        measured: in ascending order of ``after``; of a diverged run those before it diverged.
        file: the file that the run was read from.
    """

    n_rounds: PositiveInt
    n_edits: PositiveInt
    seed: int
    status: Literal["ok", "diverged"]
    reason: str | None
    measured: tuple[Measured, ...]
    file: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        whole = bool(self.measured) and self.measured[-1].after == self.n_rounds
        if self.status == "ok" and not whole:
            raise ValueError("a run with status 'ok' must be measured after its last round")
        if self.status == "diverged" and (whole or not self.reason):
            raise ValueError("a run with status 'diverged' needs a reason and no measurement after its last round")
        return self

    @property
    def rounds(self) -> str:
        """The name of its rounds: ``8x64`` for 8 rounds of 64 edits."""
        return f"{self.n_rounds}x{self.n_edits}"

    def value(self, measure: str, after: int | None = None) -> float:
        """Return a measure after some rounds, or after all; NaN if the run diverged before or does not have it."""
        found = [one.values for one in self.measured if one.after == (after or self.n_rounds)]
        return found[0].get(measure, float("nan")) if found else float("nan")


class RoundsFile(ResultFile):
    """One editor on one model, in rounds of several kinds."""

    kind: ClassVar[str] = "rounds"

    model: str
    model_label: str
    dataset: str
    editor: str
    editor_label: str
    runs: Annotated[tuple[RoundsRun, ...], Field(min_length=1)]


class RoundsCost(ResultPart):
    """What one run in rounds cost, apart from training and from measuring.

    Attributes:
        n_rounds: T.
        n_edits: m.
        seed: of all draws.
        seconds: of each round that was made: processor time on a CPU, wall time on a GPU.
        peak_bytes: peak memory of the process (CPU) or of the allocator (GPU) while it edited.
    """

    n_rounds: PositiveInt
    n_edits: PositiveInt
    seed: int
    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def seconds_per_edit(self) -> float:
        """The mean over all edits; NaN if no round was made."""
        return fmean(self.seconds) / self.n_edits if self.seconds else float("nan")


class RoundsCostsFile(ResultFile, RootModel[tuple[RoundsCost, ...]]):
    """The costs of several runs in rounds of one editor."""

    kind: ClassVar[str] = "costs in rounds"
