"""The settings of UltraEdit, and of StableEdit, which is UltraEdit with two more steps."""

import math
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize, Tokens, VirtualBatches
from malmen.config.editor import EditorSettings


@dataclass(frozen=True, config=STRICT, kw_only=True)
class UltraEditSettings:
    """How UltraEdit edits; set either ``learning_rate`` or ``step_length``."""

    learning_rate: PositiveFloat | None = None
    """eta, the factor of every value difference (its authors: 1e-6 for all models)."""
    step_length: PositiveFloat | None = None
    """In place of eta, the length that a value difference has where key and gradient are of average size:
    eta d_in sqrt(d_out). With eta = 1e-6 it is 0.49 in Llama-3 8B, 0.92 in Mistral 7B and 1.05 in GPT-J, but far
    smaller in a small model."""
    factor: Literal["normalised", "product"] = "normalised"
    """What a gradient is multiplied with: the squared length of the standardised key ("normalised", UltraEdit), or the
    inner product of the key with the standardised key ("product", MALMEN before its training)."""
    regularisation: NonNegativeFloat = 1.0
    """lambda of the normal equation (UltraEdit: 1, StableEdit: 10)."""
    whitening: bool = False
    """Whether gradients are whitened by their whole covariance (StableEdit), not by the variance of each number alone;
    only once it is known from more rows than d_out + 1."""
    warm_up: NonNegativeInt = 0
    """The number of first rounds that do without whitening. (StableEdit warms up with 20 to 200 rounds of training
    records, whose edits it keeps; here these rounds are some of those that are measured.)"""
    covariance_floor: PositiveFloat = 1e-6
    """The least eigenvalue of the covariance that whitening takes for real; smaller ones are raised to it."""
    tokens: Tokens = "answer"
    """Which positions are cached: "answer" (CLS in a BERT), or "all" attended ones; of an encoder-decoder always
    all."""
    virtual_batches: VirtualBatches = "drawn"
    """How the m sequences of a round are divided into virtual batches of 32, over each of which the loss is a mean: in
    the order in which they were drawn, or "sorted" by length, longest first, as in the public code."""
    batch_size: BatchSize = "auto"
    """Sequences run through the language model at once, in editing and evaluation; changes time and memory, and results
    by rounding only. "auto": by the model's size, and on a GPU as many more as make it faster."""
    rows_bytes: NonNegativeInt | Literal["auto"] = "auto"
    """Memory, in bytes, for what is kept of a round in all layers (keys, value gradients and factors); what does not
    fit goes to files without a name in the directory of temporary files (TMPDIR). "auto": 64 MiB, on a GPU a quarter of
    its memory."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless one of the two keys for the size of a step is set, and the others go together."""
        if (self.learning_rate is None) == (self.step_length is None):
            said = "neither is" if self.learning_rate is None else "both are"
            raise ValueError(f"set either learning_rate or step_length ({said} set)")
        if self.warm_up and not self.whitening:
            raise ValueError(f"warm_up is {self.warm_up} but without whitening there is nothing to warm up")

    def eta(self, d_in: int, d_out: int) -> float:
        """Return eta for a layer with keys of size ``d_in`` and values of size ``d_out``."""
        if self.step_length is None:
            assert self.learning_rate
            return self.learning_rate
        return self.step_length / (d_in * math.sqrt(d_out))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class UltraEditEditorSettings(EditorSettings):
    """UltraEdit: one step from standardised keys and gradients, without training; with whitening it is StableEdit."""

    batches_in: ClassVar[str | None] = "ultraedit"

    method: Literal["ultraedit"] = "ultraedit"
    """How the editor edits."""
    ultraedit: UltraEditSettings
    """How UltraEdit edits."""

    @property
    def batch_size(self) -> BatchSize:
        """Sequences run through the language model at once while the editor is evaluated."""
        return self.ultraedit.batch_size

    @property
    def captured_tokens(self) -> Tokens:
        """The positions that are cached."""
        return self.ultraedit.tokens
