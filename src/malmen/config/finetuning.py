"""The settings of FT, fine-tuning on the edits."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize
from malmen.config.editor import EditorSettings


@dataclass(frozen=True, config=STRICT)
class FineTuningSettings:
    """How FT tunes (paper: appendix A.5)."""

    epochs: PositiveInt = 5
    """Passes over the edits."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's learning rate."""
    weight_decay: NonNegativeFloat = 5e-4
    """AdamW's weight decay."""


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
