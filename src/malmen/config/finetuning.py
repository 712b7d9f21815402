"""The settings of FT, fine-tuning on the edits."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize
from malmen.config.editor import EditorSettings

Loss = Literal["tokens", "sequences"]
"""Over what the loss of a minibatch is a mean."""


@dataclass(frozen=True, config=STRICT)
class FineTuningSettings:
    """How FT tunes (paper: appendix A.5); LocFT-BF is FT of one layer with other settings."""

    epochs: PositiveInt = 5
    """Passes over the edits, at most (LocFT-BF: 25)."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's learning rate."""
    weight_decay: NonNegativeFloat = 5e-4
    """AdamW's weight decay; without any it is Adam (LocFT-BF: 0)."""
    batch_size: PositiveInt = 32
    """Edits of one step (LocFT-BF: 100)."""
    loss: Loss = "tokens"
    """Whether the loss of a step is the mean over all answer tokens, or the mean over its edits of their means over
    answer tokens (LocFT-BF: "sequences"), where a long answer counts no more than a short one."""
    stop_loss: NonNegativeFloat = 0.0
    """Tuning ends after an epoch whose mean loss, each as it was before its step, was smaller (LocFT-BF: 0.01); 0 means
    that all epochs are made."""
    skip_loss: NonNegativeFloat = 0.0
    """A step is left out where the loss is already smaller (LocFT-BF: 0.01); 0 means that none is."""
    end_of_sequence: bool = False
    """Whether the model also learns to end each answer with its end-of-sequence token (LocFT-BF); not for a model that
    checks facts."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FineTuningEditorSettings(EditorSettings):
    """FT, which fine-tunes the edited layers on the edits."""

    method: Literal["finetuning"] = "finetuning"
    """How the editor edits."""
    finetuning: FineTuningSettings = FineTuningSettings()
    """How the weights are tuned."""
    batch_size: BatchSize = "auto"
    """Sequences run through the language model at once while the editor is evaluated; changes time and memory, and
    results by rounding only."""

    @property
    def captured_tokens(self) -> None:
        """None: it reads no keys."""
