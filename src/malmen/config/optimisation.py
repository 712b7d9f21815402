"""How a language model is trained: pretrained from scratch, or fine-tuned before it is edited."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT


@dataclass(frozen=True, config=STRICT)
class OptimisationSettings:
    """How a language model is trained."""

    epochs: PositiveInt = 2
    """Passes over the data."""
    batch_size: PositiveInt = 32
    """Sequences per step."""
    learning_rate: PositiveFloat = 3e-5
    """Peak learning rate of AdamW; reached after a warm-up over 5 % of the steps, then decayed linearly to 0."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
