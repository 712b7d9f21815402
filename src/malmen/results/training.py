"""What the training of an editor came to: ``training.json`` beside the editor."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from malmen.results.file import ResultFile


@dataclass(frozen=True)
class MetaLosses:
    """Means over virtual batches before a step: L_gen and L_loc of equation 1, and the norm of the meta-gradient."""

    generalisation: float
    locality: float
    gradient_norm: float


class TrainingFile(ResultFile):
    """The outcome of a training.

    Attributes:
        status: "ok", or "diverged" with a ``reason``.
        reason: why training stopped, or None.
        losses: of each meta-step taken.
    """

    kind: ClassVar[str] = "training"

    status: Literal["ok", "diverged"]
    reason: str | None
    losses: tuple[MetaLosses, ...]
