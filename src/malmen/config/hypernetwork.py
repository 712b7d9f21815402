"""The settings of editors with a hyper-network: MALMEN, MEND and their ablations."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, BatchSize, Tokens, VirtualBatches
from malmen.config.editor import EditorSettings


@dataclass(frozen=True, config=STRICT)
class HyperNetworkSettings:
    """How MEND and MALMEN refine and aggregate (paper: appendix A.6)."""

    aggregation: Literal["least_squares", "sum"] = "least_squares"
    """How the shifts of single tokens become one: by the normal equation (MALMEN), or summed (MEND)."""
    regularised: bool = True
    """Whether the normal equation is regularised (by a learned lambda per layer); false is an ablation of Table 1."""
    tokens: Tokens = "answer"
    """Which positions are cached: "answer" (CLS in a BERT), or "all" attended ones (an ablation of Tables 1 and 2);
    of an encoder-decoder always all."""
    virtual_batches: VirtualBatches = "drawn"
    """How the m sequences of a kind are divided into virtual batches of 32, over each of which losses are means: in the
    order in which they were drawn, or "sorted" by length, longest first, as in the public code."""
    rank: PositiveInt = 1920
    """Rank of the hyper-network's linear maps."""
    blocks: PositiveInt = 2
    """Number of residual blocks in the hyper-network."""
    learning_rate: PositiveFloat = 1e-6
    """Initial eta of every layer: small enough that the first shift changes almost nothing."""
    batch_size: BatchSize = "auto"
    """Sequences run through the language model at once, in training and evaluation; changes time and memory, and one
    step by rounding only, which training amplifies: a trained editor has other weights, which do the same. "auto": by
    the model's size, and on a GPU as many more as make it faster. Fewer whenever memory runs out. The job's record
    says what was used."""
    rows_per_batch: BatchSize = "auto"
    """Rows (cached tokens) run through the hyper-network at once, with the same effects. "auto": as many as fit into
    ``graph_bytes``."""
    graph_bytes: NonNegativeInt = 2**28
    """Memory, in bytes, for values of the hyper-network that its backward pass needs: of all layers where that is
    enough for them, else of a batch of rows."""
    rows_bytes: NonNegativeInt | Literal["auto"] = "auto"
    """Memory, in bytes, for what is kept of a group of edits in all layers (keys, value gradients and factors); what
    does not fit goes to files without a name in the directory of temporary files (TMPDIR). "auto": 64 MiB, on a GPU a
    quarter of its memory."""
    device: str | None = None
    """Where hyper-network, cached rows and linear systems lie, such as "cuda:1"; null: where the first edited layer
    lies."""


@dataclass(frozen=True, config=STRICT)
class RolloutSettings:
    """How the hyper-network is trained while the model is being edited (RLEdit).

    A sequence starts from the unedited model. In each of its rounds m edits come into the model, and stay until the
    sequence ends. A step of training is a round.
    """

    sequences: PositiveInt
    """How many sequences of rounds are rolled out."""
    n_rounds: PositiveInt | None = None
    """T, the number of rounds of a sequence; set this or ``total``."""
    total: PositiveInt | None = None
    """T m, the number of edits of a sequence, so that an editor for a large m makes fewer rounds."""
    rounds_per_step: PositiveInt | Literal["all"] = "all"
    """The rounds whose gradients are added up before Adam takes a step; the last round of a sequence always ends in a
    step. "all": one step for each sequence, as in the public code, whose training is one sequence and so one step."""
    back_depth: PositiveInt = 10
    """k: the losses of a round are those of its own tuples and of the tuples of the k - 1 rounds before."""
    time_decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """mu: the tuples of i rounds ago count mu^i times."""
    l2: NonNegativeFloat = 1e-4
    """eta_reg, the weight of the squared norm of a round's shifts in its loss."""
    l2_gradient: bool = False
    """Whether the network learns from that norm; in the public code it is a number without a gradient."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the length of a sequence is given once, and a step takes no more rounds."""
        if (self.n_rounds is None) == (self.total is None):
            raise ValueError("set either n_rounds or total, the length of a sequence")
        if self.n_rounds and self.rounds_per_step != "all" and self.rounds_per_step > self.n_rounds:
            raise ValueError(
                f"rounds_per_step is {self.rounds_per_step} but a sequence has {self.n_rounds} rounds (n_rounds)"
            )

    def rounds(self, n_edits: int) -> int:
        """Return T, the number of rounds of a sequence of groups of ``n_edits``."""
        return self.n_rounds or max(1, (self.total or 1) // n_edits)

    def groups_per_round(self, n_edits: int) -> float:
        """Return on the tuples of how many rounds a round looks, on average over a sequence."""
        rounds = self.rounds(n_edits)
        return sum(min(t, self.back_depth) for t in range(1, rounds + 1)) / rounds

    def ends_step(self, n_made: int, n_rounds: int) -> bool:
        """Return whether Adam takes a step after so many rounds of a sequence of ``n_rounds``."""
        every = n_rounds if self.rounds_per_step == "all" else self.rounds_per_step
        return n_made % every == 0 or n_made == n_rounds


@dataclass(frozen=True, config=STRICT)
class TrainingSettings:
    """How the hyper-network is trained (paper: appendix A.6)."""

    meta_learning_rate: PositiveFloat = 1e-5
    """Adam's learning rate for all that is trained."""
    locality_coefficient: NonNegativeFloat = 1.0
    """lambda_loc, the weight of the locality loss."""
    max_meta_gradient_norm: PositiveFloat = 1.0
    """The meta-gradient is scaled down to this global norm if it is longer."""
    min_steps: NonNegativeInt = 0
    """Pass over the training tuples again until at least this many meta-steps are made (paper: one pass, so 0)."""
    max_steps: int | None = None
    """Stop after this many meta-steps even within the first pass; null means no limit."""
    rollout: RolloutSettings | None = None
    """Train while the model is being edited, as RLEdit does; null: always on the unedited model (MALMEN, MEND)."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the bounds of the number of steps contradict each other or a rollout."""
        if self.rollout and (self.min_steps or self.max_steps is not None):
            raise ValueError(
                f"min_steps is {self.min_steps} and max_steps is {'null' if self.max_steps is None else self.max_steps}"
                ", but a rollout makes sequences * n_rounds steps; set min_steps to 0 and max_steps to null"
            )
        if self.max_steps is not None and self.max_steps < max(1, self.min_steps):
            raise ValueError(f"max_steps is {self.max_steps} but must be at least 1 and min_steps ({self.min_steps})")

    def steps(self, n_tuples: int, n_edits: int) -> int:
        """Return the number of meta-steps on ``n_tuples`` training tuples in groups of ``n_edits``.

        With a rollout they are its rounds, whatever the number of tuples.
        """
        if self.rollout:
            return self.rollout.sequences * self.rollout.rounds(n_edits)
        steps = max(n_tuples // n_edits, self.min_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def groups_per_step(self, n_edits: int) -> float:
        """Return on the tuples of how many groups of ``n_edits`` a meta-step looks, on average."""
        return self.rollout.groups_per_round(n_edits) if self.rollout else 1.0


@dataclass(frozen=True, config=STRICT)
class InRoundsSettings:
    """What becomes of a trained editor in rounds; its training knows nothing of this."""

    normaliser: Literal["frozen", "running"] = "frozen"
    """Whether the normalisers stay as training left them, or take in each round's rows before its shifts are computed,
    as in the code of the later papers."""
    remember_keys: bool = False
    """Whether the normal equation also holds the keys of the rounds before, so that their values move little."""
    retrain_every: PositiveInt | None = None
    """Train the editor anew, on the model as it is, after this many rounds, again and again; null: never."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if an editor is to be trained anew and to go on from earlier rounds."""
        if self.retrain_every and (self.remember_keys or self.normaliser == "running"):
            raise ValueError("retrain_every trains the editor anew, so set neither remember_keys nor normaliser")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class HyperNetworkEditorSettings(EditorSettings):
    """An editor with a hyper-network, which is trained before it edits: MALMEN, or MEND."""

    trained: ClassVar[bool] = True
    batches_in: ClassVar[str | None] = "hypernetwork"

    method: Literal["hypernetwork"] = "hypernetwork"
    """How the editor edits."""
    hypernetwork: HyperNetworkSettings = HyperNetworkSettings()
    """The hyper-network and how its output becomes a shift."""
    training: TrainingSettings = TrainingSettings()
    """How the hyper-network is trained."""
    in_rounds: InRoundsSettings = InRoundsSettings()
    """What becomes of the trained editor in rounds. Editors that differ in this alone share their trainings."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a sum of shifts is to remember keys."""
        super().__post_init__()
        if self.in_rounds.remember_keys and self.hypernetwork.aggregation == "sum":
            raise ValueError("in_rounds.remember_keys is for the normal equation, but aggregation is sum; remove it")

    @property
    def batch_size(self) -> BatchSize:
        """Sequences run through the language model at once while the editor is evaluated."""
        return self.hypernetwork.batch_size

    @property
    def captured_tokens(self) -> Tokens:
        """The positions that are cached."""
        return self.hypernetwork.tokens
