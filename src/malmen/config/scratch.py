"""The size of a model, and the tiny models that are trained from scratch."""

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, Architecture


@dataclass(frozen=True, config=STRICT)
class Shape:
    """The size of a Transformer, as far as the cost of running it depends on it."""

    blocks: PositiveInt
    """Number of Transformer blocks (of the encoder and of the decoder each, where a model has both)."""
    hidden_size: PositiveInt
    """Width of the hidden state."""
    ffn_size: PositiveInt
    """Width inside the feed-forward network."""
    vocabulary: PositiveInt
    """Number of entries of the vocabulary."""
    gated: bool = False
    """Whether the feed-forward network has a gate, a third matrix."""

    @property
    def ffn(self) -> int:
        """Parameters of one feed-forward network."""
        return (3 if self.gated else 2) * self.hidden_size * self.ffn_size

    @property
    def attention(self) -> int:
        """Parameters of one attention."""
        return 4 * self.hidden_size**2

    @property
    def head(self) -> int:
        """Parameters of the output head, and of the embedding."""
        return self.hidden_size * self.vocabulary


@dataclass(frozen=True, config=STRICT)
class ScratchSettings:
    """A tiny model that is trained from scratch within the workflow: its shape and objective."""

    architecture: Architecture
    """Which architecture: "bert" (masked language model), "gpt2" or "gptj" (causal language model), "t5" (version 1.1:
    span corruption) or "bart" (text infilling)."""
    layers: PositiveInt = 4
    """Number of Transformer blocks (of the encoder and of the decoder each, where a model has both)."""
    hidden_size: PositiveInt = 128
    """Width of the hidden state; the FFN is four times as wide."""
    heads: PositiveInt = 4
    """Number of attention heads; divides hidden_size."""
    vocabulary: PositiveInt = 4000
    """Largest number of entries in the tokenizer's vocabulary."""
    max_length: PositiveInt = 64
    """Longest sequence, in tokens."""
    neighbour_coefficient: NonNegativeFloat = 1.0
    """Weight of the loss by which a BERT's [CLS] tells a line's neighbour from other lines; unused by the others."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the heads do not divide the hidden state, or are too narrow for the architecture."""
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if self.architecture == "gptj" and self.head_size < 4:
            raise ValueError(f"a head is {self.head_size} wide but must be at least 4 in a 'gptj'; lower heads")

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.heads

    @property
    def shape(self) -> Shape:
        """The size of the model."""
        gated = self.architecture == "t5"
        return Shape(self.layers, self.hidden_size, 4 * self.hidden_size, self.vocabulary, gated)
