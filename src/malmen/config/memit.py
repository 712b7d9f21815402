"""The settings of MEMIT."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize, TaskName, Tokens
from malmen.config.editor import EditorSettings

KeyWeights = Literal["equal", "bare_half"]

Update = Literal["least_squares", "equality", "null_space"]
"""How a layer's shift follows from the keys of the edits and the changes that they miss."""

LONGEST_TEXT = 2048
"""Tokens of a text that are run at once to collect the covariance of keys, if the model reads so many: as many as GPT-J
reads. Longer sequences, which modern models read, would only take more memory."""


@dataclass(frozen=True, config=STRICT)
class CovarianceSettings:
    """The text from which MEMIT's covariance of keys is estimated."""

    source: Literal["text", "wikipedia"] = "text"
    """"text": a local file of one text per line; "wikipedia": a dump on the Hugging Face hub, streamed."""
    path: str | None = None
    """The local file (source "text"); null means the data set's own text.txt."""
    max_tokens: PositiveInt = 3_000_000
    """Largest number of tokens read (MEMIT: 100,000 articles; a few million tokens give the same covariance)."""
    batch_size: PositiveInt = 8
    """Sequences run through the language model at once; changes time and memory, and results by rounding only."""
    dataset: str = "wikimedia/wikipedia"
    """Id of the hub's data set (source "wikipedia")."""
    dump: str = "20231101.en"
    """Which of its dumps, by date and language (source "wikipedia")."""
    revision: str = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
    """Commit of the data set, so that the text cannot change (source "wikipedia")."""
    seed: int = 0
    """Seed of the order of articles (source "wikipedia")."""


@dataclass(frozen=True, config=STRICT)
class NullSpaceSettings:
    """The directions of keys in which AlphaEdit edits, and how strongly it holds shifts back there."""

    threshold: PositiveFloat = 2e-2
    """Directions are kept whose eigenvalue of the covariance of keys is smaller (AlphaEdit's code 0.02, paper 0.01). It
    is in units of a squared key, so other models may need another."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """This share of the directions is kept, those in which keys of ordinary text are shortest; null means that the
    threshold decides. It suits every scale of keys."""
    regularisation: PositiveFloat = 10.0
    """alpha: weight of the squared length of a shift, in units of a squared key (AlphaEdit's code 10, paper 1)."""


@dataclass(frozen=True, config=STRICT)
class MemitSettings:
    """How MEMIT edits; the defaults are those of its authors for GPT-J, with blocks 3 to 8 (Meng et al., 2023)."""

    steps: PositiveInt = 25
    """Largest number of Adam's steps towards each edit's hidden state."""
    learning_rate: PositiveFloat = 0.5
    """Adam's learning rate, in units of the hidden state."""
    stop_loss: NonNegativeFloat = 0.05
    """An edit is optimised no further once its loss (in nats) is smaller; 0 means that all steps are taken."""
    kl_coefficient: NonNegativeFloat = 0.0625
    """Weight of the divergence of what the model says after "{subject} is a"."""
    weight_decay: NonNegativeFloat = 0.5
    """Weight of the squared length of the change, relative to the squared length of the hidden state."""
    max_relative_norm: PositiveFloat = 0.75
    """Largest length of the change, in units of the length of the hidden state."""
    covariance_weight: PositiveFloat = 15_000.0
    """w: the weight of an average key of ordinary text, where an edit has weight 1 (GPT-J: 15,000)."""
    update: Update = "least_squares"
    """How a layer's shift follows from keys and missing changes: "least_squares" (MEMIT) weighs edits against ordinary
    text; "equality" (EMMET) makes the edits and changes ordinary text as little as that allows; "null_space"
    (AlphaEdit) only changes what keys do in directions that ordinary text hardly has."""
    ridge: NonNegativeFloat = 0.1
    """What is added to the diagonal of EMMET's system, which is singular where keys depend on each other ("equality"
    only). Without remembered keys, MEMIT with it as covariance_weight finds the same shifts."""
    null_space: NullSpaceSettings = NullSpaceSettings()
    """The directions in which AlphaEdit edits ("null_space" only)."""
    remember: bool = False
    """In rounds: whether keys that earlier rounds edited are protected from later ones, as each edit is (AlphaEdit)."""
    prefix_starts: tuple[str, ...] = ("The", "Therefore", "Because", "I", "You")
    """The model continues each to a text that is put before the prompts; edits hold with each and with none."""
    prefix_tokens: PositiveInt = 10
    """Length of these texts, in tokens."""
    top_k: PositiveInt = 5
    """The next token of such a text is drawn from this many of the likeliest tokens."""
    key_weights: KeyWeights = "equal"
    """How a subject's keys are averaged over its contexts: "equal", as in the paper; "bare_half", as in the public code
    (the bare prompt counts one half, all prompts with prefixes together the other)."""
    batch_size: PositiveInt = 8
    """Edits optimised at once, in all contexts; changes time and memory, and results by rounding only."""
    covariance: CovarianceSettings = CovarianceSettings()
    """The text from which the covariance of keys is estimated."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MemitEditorSettings(EditorSettings):
    """MEMIT, which edits the second FFN layer of chosen blocks of a decoder-only model."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("question_answering",)

    method: Literal["memit"] = "memit"
    """How the editor edits."""
    memit: MemitSettings = MemitSettings()
    """How MEMIT edits."""
    batch_size: BatchSize = "auto"
    """Sequences run through the language model at once while the editor is evaluated; changes time and memory, and
    results by rounding only."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the second layers of chosen blocks are edited."""
        super().__post_init__()
        if self.blocks is None or self.ffn_layers != ("second",):
            raise ValueError('method "memit" edits the second FFN layer of chosen blocks: set blocks, not ffn_layers')

    @property
    def captured_tokens(self) -> Tokens:
        """All positions: a subject can end anywhere in a prompt."""
        return "all"

    @property
    def covariance(self) -> CovarianceSettings:
        """The text from which the covariance of keys is estimated."""
        return self.memit.covariance
