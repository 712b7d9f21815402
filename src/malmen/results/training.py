"""What the training of an editor came to: ``training.json`` beside the editor."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from malmen.results.file import ResultFile


@dataclass(frozen=True)
class MetaLosses:
    """Means over virtual batches before a step: L_gen and L_loc of equation 1, and the norm of the meta-gradient.

    In a rollout a step is a round. The means are then weighted by the decay of earlier rounds, and the norm is that of
    the gradient added up since Adam's last step, before it is clipped.
    """

    generalisation: float
    locality: float
    gradient_norm: float


@dataclass(frozen=True)
class Moved:
    """How far training moved the parameters of one kind, all networks, blocks and layers taken together.

    Attributes:
        largest: the largest change of a single number.
        relative: the norm of the change, divided by the norm of the initial values; None if these are all 0.
    """

    largest: float
    relative: float | None


class TrainingFile(ResultFile):
    """The outcome of a training.

    Attributes:
        status: "ok", or "diverged" with a ``reason``.
        reason: why training stopped, or None.
        losses: of each meta-step taken.
        moved: how far the parameters of each kind moved, by their names in the network: ``eta``,
            ``log_regularisation``, and of all blocks ``A``, ``B``, ``bias``, ``scale`` and ``shift``; files of earlier
            versions lack it.
    """

    kind: ClassVar[str] = "training"

    status: Literal["ok", "diverged"]
    reason: str | None
    losses: tuple[MetaLosses, ...]
    moved: dict[str, Moved] | None = None
