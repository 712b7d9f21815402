"""The settings of models and editors, each key with its type, default, unit and meaning.

Plain frozen dataclasses without torch, so that the editing code runs without the configuration's machinery, and the
configuration is checked without loading torch; pydantic builds and describes them (:mod:`malmen.config.load`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

STRICT: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True}
"""As ``__pydantic_config__`` of a dataclass: refuse unknown keys, and describe fields by the strings below them."""

DeviceMap = Literal["auto"] | Mapping[str, int | str]
"""Where the parts of a model lie: spread over all devices as they fit, or by the names of its modules."""

TaskName = Literal["fact_checking", "question_answering", "sequence_to_sequence"]
"""How a model answers: with the log-odds of SUPPORTS, with tokens that continue the prompt (a decoder-only model), or
with tokens of the decoder while the encoder reads the prompt (an encoder-decoder)."""

Architecture = Literal["bert", "gpt2", "gptj", "t5", "bart"]
"""The architectures that can be trained from nothing."""

Dtype = Literal["float32", "bfloat16"]
"""Precision of a model's weights."""

Tokens = Literal["answer", "all"]
"""Which positions are cached: those that output an answer (CLS in a BERT), or every attended one (always so in an
encoder-decoder)."""

BatchSize = int | Literal["auto"]
"""How many items are run at once; "auto": as many as suit the model, and as memory holds."""

FfnLayer = Literal["first", "second"]
"""The two linear layers of a feed-forward network."""

FfnPatterns = Mapping[FfnLayer, Sequence[str]]
"""Regular expressions for the names of a model's first and second FFN layers, one per stack of blocks."""


CACHE_GB = 100.0
"""How large a cache may be, unless a configuration says otherwise."""


def require_positive(settings: object, *names: str) -> None:
    """Raise ``ValueError`` unless all the named settings are greater than 0."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} is {getattr(settings, name)} but must be greater than 0")


def require_not_negative(settings: object, *names: str) -> None:
    """Raise ``ValueError`` unless all the named settings are at least 0."""
    for name in names:
        if not getattr(settings, name) >= 0:
            raise ValueError(f"{name} is {getattr(settings, name)} but must be at least 0")


@dataclass(frozen=True)
class ScratchSettings:
    """A tiny model that is trained from nothing within the workflow: its shape and objective."""

    __pydantic_config__: ClassVar = STRICT

    architecture: Architecture
    """Which architecture: "bert" (masked language model), "gpt2" or "gptj" (causal language model), "t5" (version 1.1:
    span corruption) or "bart" (text infilling)."""
    layers: int = 4
    """Number of Transformer blocks (of the encoder and of the decoder each, where a model has both)."""
    hidden_size: int = 128
    """Width of the hidden state; the FFN is four times as wide."""
    heads: int = 4
    """Number of attention heads; divides hidden_size."""
    vocabulary: int = 4000
    """Largest number of entries in the tokenizer's vocabulary."""
    max_length: int = 64
    """Longest sequence, in tokens."""
    neighbour_coefficient: float = 1.0
    """Weight of the loss by which a BERT's [CLS] tells a line's neighbour from other lines; unused by the others."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a shape that cannot be."""
        require_positive(self, "layers", "hidden_size", "heads", "vocabulary", "max_length")
        require_not_negative(self, "neighbour_coefficient")
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if self.architecture == "gptj" and self.head_size < 4:
            raise ValueError(f"a head is {self.head_size} wide but must be at least 4 in a 'gptj'; lower heads")

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.heads

    @property
    def shape(self) -> "Shape":
        """The size of the model."""
        gated = self.architecture == "t5"
        return Shape(self.layers, self.hidden_size, 4 * self.hidden_size, self.vocabulary, gated)


@dataclass(frozen=True)
class Shape:
    """The size of a Transformer, as far as the cost of running it depends on it."""

    __pydantic_config__: ClassVar = STRICT

    blocks: int
    """Number of Transformer blocks (of the encoder and of the decoder each, where a model has both)."""
    hidden_size: int
    """Width of the hidden state."""
    ffn_size: int
    """Width inside the feed-forward network."""
    vocabulary: int
    """Number of entries of the vocabulary."""
    gated: bool = False
    """Whether the feed-forward network has a gate, a third matrix."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a shape that cannot be."""
        require_positive(self, "blocks", "hidden_size", "ffn_size", "vocabulary")

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


@dataclass(frozen=True)
class OptimisationSettings:
    """How a language model is trained."""

    __pydantic_config__: ClassVar = STRICT

    epochs: int = 2
    """Passes over the data."""
    batch_size: int = 32
    """Sequences per step."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW; reached after a warm-up over 5 % of the steps, then decayed linearly to 0."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "epochs", "batch_size", "learning_rate")
        require_not_negative(self, "weight_decay")


@dataclass(frozen=True)
class HyperNetworkSettings:
    """How MEND and MALMEN refine and aggregate (paper: appendix A.6)."""

    __pydantic_config__: ClassVar = STRICT

    aggregation: Literal["least_squares", "sum"] = "least_squares"
    """How the shifts of single tokens become one: by the normal equation (MALMEN), or summed (MEND)."""
    regularised: bool = True
    """Whether the normal equation is regularised (by a learned lambda per layer); false is an ablation of Table 1."""
    tokens: Tokens = "answer"
    """Which positions are cached: "answer" (CLS in a BERT), or "all" attended ones (an ablation of Tables 1 and 2);
    of an encoder-decoder always all."""
    rank: int = 1920
    """Rank of the hyper-network's linear maps."""
    blocks: int = 2
    """Number of residual blocks in the hyper-network."""
    learning_rate: float = 1e-6
    """Initial eta of every layer: small enough that the first shift changes almost nothing."""
    batch_size: BatchSize = "auto"
    """Sequences run through the language model at once; changes time and memory, and results by rounding only. "auto":
    by the model's size, and on a GPU as many more as make it faster. Fewer whenever memory runs out."""
    rows_per_batch: BatchSize = "auto"
    """Rows (cached tokens) run through the hyper-network at once; changes time and memory, and results by rounding
    only. "auto": as many as fit into ``graph_bytes``."""
    graph_bytes: int = 2**28
    """Memory, in bytes, for values of the hyper-network that its backward pass needs: of all layers where that is
    enough for them, else of a batch of rows."""
    rows_bytes: int | Literal["auto"] = "auto"
    """Memory, in bytes, for what is kept of a group of edits in all layers, keys, value gradients and factors; if there
    is more, it goes to files without a name in the directory of temporary files (TMPDIR). "auto": 64 MiB, on a GPU a
    quarter of its memory."""
    device: str | None = None
    """Where hyper-network, cached rows and linear systems lie, such as "cuda:1"; null: where the first edited layer
    does."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "rank", "blocks", "learning_rate")
        require_positive(self, *(name for name in ("batch_size", "rows_per_batch") if getattr(self, name) != "auto"))
        require_not_negative(self, "graph_bytes", *(["rows_bytes"] if self.rows_bytes != "auto" else []))


@dataclass(frozen=True)
class TrainingSettings:
    """How the hyper-network is trained (paper: appendix A.6)."""

    __pydantic_config__: ClassVar = STRICT

    meta_learning_rate: float = 1e-5
    """Adam's learning rate for all that is trained."""
    locality_coefficient: float = 1.0
    """lambda_loc, the weight of the locality loss."""
    max_meta_gradient_norm: float = 1.0
    """The meta-gradient is scaled down to this global norm if it is longer."""
    min_steps: int = 0
    """Pass over the training tuples again until at least so many meta-steps are made (paper: one pass, so 0)."""
    max_steps: int | None = None
    """Stop after so many meta-steps even within the first pass; null means no limit."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "meta_learning_rate", "max_meta_gradient_norm")
        require_not_negative(self, "locality_coefficient", "min_steps")
        if self.max_steps is not None and self.max_steps < max(1, self.min_steps):
            raise ValueError(f"max_steps is {self.max_steps} but must be at least 1 and min_steps ({self.min_steps})")

    def steps(self, n_tuples: int, n_edits: int) -> int:
        """Return the number of meta-steps on ``n_tuples`` training tuples in groups of ``n_edits``."""
        steps = max(n_tuples // n_edits, self.min_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass(frozen=True)
class FineTuningSettings:
    """How FT tunes (paper: appendix A.5)."""

    __pydantic_config__: ClassVar = STRICT

    epochs: int = 5
    """Passes over the edits."""
    learning_rate: float = 5e-4
    """AdamW's learning rate."""
    weight_decay: float = 5e-4
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "epochs", "learning_rate")
        require_not_negative(self, "weight_decay")


@dataclass(frozen=True)
class TranslationSettings:
    """How texts are rephrased by translating them to another language and back (De Cao et al., 2021)."""

    __pydantic_config__: ClassVar = STRICT

    forward: str = "Helsinki-NLP/opus-mt-en-de"
    """The model that translates to the other language: a local directory, or an id of the Hugging Face hub."""
    forward_revision: str | None = None
    """Commit of its repository, one that holds safetensors (as that of refs/pr/4, 73d41ab); a directory needs none."""
    backward: str = "Helsinki-NLP/opus-mt-de-en"
    """The model that translates back: a local directory, or an id of the hub."""
    backward_revision: str | None = "6f6b23ef5ef8a586414ad9d2b7dda64ca5352935"
    """Commit of its repository, one that holds safetensors."""
    beams: int = 5
    """Beams of each translation's search."""
    translations: int = 5
    """Translations kept of each text, both ways: a text has the square of this number of candidate rephrasings."""
    max_tokens: int = 128
    """Longest text and longest translation, in the translation models' tokens; what is longer is cut off."""
    batch_size: int = 32
    """Texts translated at once; changes time and memory, and results by rounding only."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "beams", "translations", "max_tokens", "batch_size")
        if self.translations > self.beams:
            raise ValueError(f"translations is {self.translations} but must be at most beams ({self.beams})")


@dataclass(frozen=True)
class StatisticsSettings:
    """Which text MEMIT's second moments of keys are estimated on."""

    __pydantic_config__: ClassVar = STRICT

    source: Literal["text", "wikipedia"] = "text"
    """"text": a local file of one text per line; "wikipedia": a dump on the Hugging Face hub, streamed."""
    path: str | None = None
    """The local file (source "text"); null means the data set's own text.txt."""
    max_tokens: int = 3_000_000
    """Tokens taken at most (MEMIT: 100,000 articles; a few million tokens give the same moments)."""
    batch_size: int = 8
    """Sequences run through the language model at once; changes time and memory, and results by rounding only."""
    dataset: str = "wikimedia/wikipedia"
    """Id of the hub's data set (source "wikipedia")."""
    dump: str = "20231101.en"
    """Which of its dumps, by date and language (source "wikipedia")."""
    revision: str = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
    """Commit of the data set, so that the text cannot change (source "wikipedia")."""
    seed: int = 0
    """Seed of the order of articles (source "wikipedia")."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "max_tokens", "batch_size")


@dataclass(frozen=True)
class MemitSettings:
    """How MEMIT edits; the defaults are those of its authors for GPT-J, with blocks 3 to 8 (Meng et al., 2023)."""

    __pydantic_config__: ClassVar = STRICT

    steps: int = 25
    """Adam's steps towards each edit's hidden state, at most."""
    learning_rate: float = 0.5
    """Adam's learning rate, in units of the hidden state."""
    stop_loss: float = 0.05
    """An edit is optimised no further once its loss (in nats) is smaller; 0 means that all steps are taken."""
    kl_coefficient: float = 0.0625
    """Weight of the divergence of what the model says after "{subject} is a"."""
    weight_decay: float = 0.5
    """Weight of the squared length of the change, relative to the squared length of the hidden state."""
    max_relative_norm: float = 0.75
    """The change may be so many times as long as the hidden state at most."""
    covariance_weight: float = 15_000.0
    """w: how much weight an average key of ordinary text has, against an edit's 1 (GPT-J: 15,000)."""
    prefix_starts: tuple[str, ...] = ("The", "Therefore", "Because", "I", "You")
    """Each is continued by the model to a text put before the prompts; edits hold with each and with none."""
    prefix_tokens: int = 10
    """Length of these texts, in tokens."""
    top_k: int = 5
    """From how many of the likeliest tokens the next token of such a text is drawn."""
    batch_size: int = 8
    """Edits optimised at once, in all contexts; changes time and memory, and results by rounding only."""
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    """On which text the keys' second moments are estimated."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "steps", "learning_rate", "max_relative_norm", "covariance_weight", "batch_size")
        require_positive(self, "prefix_tokens", "top_k")
        require_not_negative(self, "stop_loss", "kl_coefficient", "weight_decay")


@dataclass(frozen=True)
class EditorSettings:
    """One editor: what it is called, which layers it edits, and how."""

    __pydantic_config__: ClassVar = STRICT

    based_on: str | None = None
    """Another editor of the configuration, whose keys this one starts from; None once they are filled in."""
    label: str = ""
    """Name in figures and tables; every editor needs one."""
    method: Literal["hypernetwork", "finetuning", "memit"] = "hypernetwork"
    """"hypernetwork" is trained before it edits (MALMEN, MEND); "finetuning" (FT) and "memit" (MEMIT) are not."""
    ffn_layers: tuple[FfnLayer, ...] = ("second",)
    """Which linear layers of a feed-forward network are edited: its "first", its "second", or both."""
    last_blocks: int = 6
    """In how many of the last Transformer blocks (of the encoder and of the decoder, where a model has both)."""
    blocks: tuple[int, ...] | None = None
    """In which blocks, counted from 0, in place of the last ones; "memit" needs them (MEMIT on GPT-J: 3 to 8)."""
    may_diverge: bool = False
    """Whether a training that diverges is a result to report (the paper's "–") rather than an error."""
    hypernetwork: HyperNetworkSettings = field(default_factory=HyperNetworkSettings)
    """The hyper-network and what is made of its output (method "hypernetwork")."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How the hyper-network is trained (method "hypernetwork")."""
    finetuning: FineTuningSettings = field(default_factory=FineTuningSettings)
    """How the weights are tuned (method "finetuning")."""
    memit: MemitSettings = field(default_factory=MemitSettings)
    """How MEMIT edits (method "memit")."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting that cannot work."""
        require_positive(self, "last_blocks")
        for name in ("label", "ffn_layers"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing or empty; set it")
        self.check_blocks()

    def check_blocks(self) -> None:
        """Raise ``ValueError`` if the blocks to edit are no blocks, or missing or not second layers in MEMIT."""
        blocks = self.blocks
        if blocks is not None and (not blocks or min(blocks) < 0 or sorted(set(blocks)) != list(blocks)):
            raise ValueError(
                f"blocks is {list(blocks)} but must be one or more block numbers from 0 in ascending order"
            )
        if self.method == "memit" and (blocks is None or self.ffn_layers != ("second",)):
            raise ValueError('method "memit" edits the second FFN layer of chosen blocks: set blocks, not ffn_layers')

    @property
    def blocks_needed(self) -> int:
        """How many blocks a stack must have for this editor."""
        return self.last_blocks if self.blocks is None else self.blocks[-1] + 1

    @property
    def trained(self) -> bool:
        """Whether the editor must be trained before it edits."""
        return self.method == "hypernetwork"


def editor_settings(raw: Mapping[str, Any]) -> EditorSettings:
    """Build an editor's settings from nested dictionaries, as ``dataclasses.asdict`` made them."""
    nested: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "hypernetwork": lambda section: HyperNetworkSettings(**section),
        "training": lambda section: TrainingSettings(**section),
        "finetuning": lambda section: FineTuningSettings(**section),
        "memit": memit_settings,
    }
    return EditorSettings(**{key: nested[key](value) if key in nested else value for key, value in raw.items()})


def memit_settings(raw: Mapping[str, Any]) -> MemitSettings:
    """Build MEMIT's settings from nested dictionaries."""
    return MemitSettings(**{**raw, "statistics": StatisticsSettings(**raw.get("statistics", {}))})
