"""How many floating-point operations editing takes, counted from shapes; a multiplication and an addition are two.

Counted are matrix products and factorisations of one meta-step, of one group of edits, and of what surrounds them.
Attention scores, normalisation, activations and optimisers are small beside them and left out. Lengths are assumed
(:class:`Lengths`), not measured. Every block is counted whole, although where only answer rows are looked at, the last
feed-forward network and the backward pass of a decoder-only model's edits are run on these alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from malmen.config.base import TaskName, Tokens
from malmen.config.editors import EditorSettings
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.config.memit import MemitEditorSettings, MemitSettings
from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import Shape
from malmen.config.ultraedit import UltraEditEditorSettings

EIGENVECTORS = 9.0
"""Operations of the eigenvectors of a symmetric d x d matrix, over d^3: an assumption."""

EIGENVECTORS = 9.0
"""Operations for all eigenvectors of a symmetric d x d matrix, by d^3."""


@dataclass(frozen=True)
class Lengths:
    """Assumed mean lengths, in tokens.

    Attributes:
        sequence: prompt and answer (of a claim: the claim).
        answer: the answer to a question.
    """

    sequence: int = 16
    answer: int = 3


@dataclass(frozen=True)
class Work:
    """A number of operations, by the precision in which they are done.

    Attributes:
        model: in the precision of the language model.
        float32: in float32, whatever the model's precision: hyper-network and linear systems.
    """

    model: float = 0.0
    float32: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.model + other.model, self.float32 + other.float32)

    def __mul__(self, times: float) -> "Work":
        return Work(times * self.model, times * self.float32)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Stack:
    """A stack of Transformer blocks.

    Attributes:
        parameters: of a block.
        forward: operations of a block's forward pass over a sequence.
        tokens: that a sequence has in it.
        answer_rows: those of them that are cached for an edit.
    """

    parameters: int
    forward: int
    tokens: int
    answer_rows: int


class Network:
    """A language model as far as its operations go, all per sequence.

    Args:
        shape: its size.
        task: how it answers.
        lengths: of its sequences.
    """

    def __init__(self, shape: Shape, task: TaskName, lengths: Lengths) -> None:
        self.shape, self.task, self.lengths = shape, task, lengths
        block, cross = shape.attention + shape.ffn, shape.attention
        whole, answer = lengths.sequence, lengths.answer
        self.head = 0 if task == "fact_checking" else 2 * shape.head * answer
        if task == "sequence_to_sequence":  # All attended positions of both stacks are cached.
            prompt = whole - answer
            # Half of the attention to the encoder, its keys and values, is computed over the prompt.
            decoder = 2 * block * answer + cross * (answer + prompt)
            self.stacks = [
                Stack(block, 2 * block * prompt, prompt, prompt),
                Stack(block + cross, decoder, answer, answer),
            ]
        else:
            self.stacks = [Stack(block, 2 * block * whole, whole, 1 if task == "fact_checking" else answer)]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.shape.head + sum(self.shape.blocks * stack.parameters for stack in self.stacks)

    @property
    def forward(self) -> float:
        """Operations of a forward pass; logits are computed where an answer is only."""
        return self.forward_from(0)

    def forward_from(self, first: int) -> float:
        """Operations of a forward pass, or of one backward to activations, from block number ``first`` on.

        A change in the encoder reaches every block of the decoder.
        """
        edited, *others = self.stacks
        reached = (self.shape.blocks - first) * edited.forward
        return self.head + reached + sum(self.shape.blocks * stack.forward for stack in others)

    def training(self, sequences: float, settings: OptimisationSettings) -> Work:
        """Return what training all parameters takes: a forward and two backward passes' worth."""
        return Work(model=3 * self.forward * sequences * settings.epochs)


@dataclass(frozen=True)
class Layer:
    """An edited layer: its widths, tokens per sequence that pass it, and rows per edit that are cached from it."""

    d_in: int
    d_out: int
    tokens: int
    rows: int

    @property
    def size(self) -> int:
        """Number of its weights."""
        return self.d_in * self.d_out


class EditorWork:
    """The operations of an editor on a network.

    Args:
        network: the language model.
        settings: the editor's.
    """

    def __init__(self, network: Network, settings: EditorSettings) -> None:
        self.network, self.settings = network, settings
        blocks = network.shape.blocks
        self.first = settings.blocks[0] if settings.blocks else max(0, blocks - settings.last_blocks)
        self.layers = list(self.edited_layers(len(settings.blocks or range(self.first, blocks))))

    @property
    def hypernetwork(self) -> HyperNetworkSettings:
        """The settings of the hyper-network; only for an editor that has one."""
        assert isinstance(self.settings, HyperNetworkEditorSettings)
        return self.settings.hypernetwork

    @property
    def training(self) -> TrainingSettings:
        """How the hyper-network is trained; only for an editor that has one."""
        assert isinstance(self.settings, HyperNetworkEditorSettings)
        return self.settings.training

    @property
    def tokens(self) -> Tokens:
        """The positions that the editor caches; those of the answer if it caches none."""
        return self.settings.captured_tokens or "answer"

    def edited_layers(self, blocks: int) -> Iterator[Layer]:
        """Yield the layers edited in so many blocks of each stack."""
        shape, cached = self.network.shape, self.tokens
        widths = {"first": (shape.hidden_size, shape.ffn_size), "second": (shape.ffn_size, shape.hidden_size)}
        for stack in self.network.stacks:
            rows = stack.answer_rows if cached == "answer" else stack.tokens
            for kind in self.settings.ffn_layers:
                yield from [Layer(*widths[kind], stack.tokens, rows)] * blocks

    @property
    def backward(self) -> float:
        """Operations of a backward pass to the activations after the first edited layer, per sequence."""
        return self.network.forward_from(self.first)

    @property
    def weight_gradients(self) -> float:
        """Operations of the gradients to the edited weights, per sequence."""
        return sum(2.0 * layer.size * layer.tokens for layer in self.layers)

    def hyper_network(self, n_edits: int) -> float:
        """Operations of one forward pass of the hyper-network over the rows cached from ``n_edits`` edits."""
        settings = self.hypernetwork
        per_row = [4 * settings.rank * (layer.d_in + layer.d_out) * settings.blocks for layer in self.layers]
        return sum(float(n_edits) * layer.rows * row for layer, row in zip(self.layers, per_row, strict=True))

    @property
    def summed(self) -> bool:
        """Whether a layer's shift is the sum of those of its rows, not the solution of a system."""
        return isinstance(self.settings, HyperNetworkEditorSettings) and self.hypernetwork.aggregation == "sum"

    @property
    def rows_bytes(self) -> int | Literal["auto"]:
        """Memory for the rows cached of a group of edits, as the editor's settings say."""
        if isinstance(self.settings, UltraEditEditorSettings):
            return self.settings.ultraedit.rows_bytes
        return self.hypernetwork.rows_bytes if isinstance(self.settings, HyperNetworkEditorSettings) else "auto"

    def solves(self, n_edits: int) -> float:
        """Operations of the shifts, and of the gradients through them, of a group of ``n_edits`` edits."""
        count = outer_products if self.summed else linear_system
        return sum(count(float(n_edits) * layer.rows, layer.d_in, layer.d_out) for layer in self.layers)

    def capture(self, n_edits: int) -> Work:
        """Return what caching keys and value gradients takes: a forward and a backward pass."""
        return Work(model=n_edits * (self.network.forward + self.backward))

    def meta_step(self, n_edits: int, groups: float = 1.0) -> Work:
        """Return what a meta-step on ``n_edits`` edits takes whose losses are those of so many groups' tuples.

        The language model goes forward over edits, equivalents and unrelated tuples, from the first edited block on
        once more over the latter, and back over all three; the hyper-network goes forward twice (the second time for
        its gradient) and back, which counts as two.
        """
        later = self.network.forward_from(self.first)
        passes = 2 * self.network.forward + later + 2 * (self.backward + self.weight_gradients)
        work = Work(groups * n_edits * passes, 4 * self.hyper_network(n_edits) + self.solves(n_edits))
        return self.capture(n_edits) + work

    def edit(self, n_edits: int) -> Work:
        """Return what it takes to edit a group."""
        if isinstance(self.settings, MemitEditorSettings):
            return self.memit(n_edits, self.settings.memit)
        if isinstance(self.settings, FineTuningEditorSettings):
            passes = self.network.forward + self.backward + self.weight_gradients
            return Work(model=self.settings.finetuning.epochs * n_edits * passes)
        if isinstance(self.settings, HyperNetworkEditorSettings):
            return self.capture(n_edits) + Work(float32=self.hyper_network(n_edits) + self.solves(n_edits))
        if isinstance(self.settings, UltraEditEditorSettings):
            whitened = self.whitening(n_edits) if self.settings.ultraedit.whitening else 0.0
            return self.capture(n_edits) + Work(float32=self.solves(n_edits) + whitened)
        # An editor of another package is taken to do what every editor does: to compute its gradients once.
        return self.capture(n_edits) + Work(model=n_edits * self.weight_gradients)

    def whitening(self, n_edits: int) -> float:
        """Operations of whitening the value gradients of a group: covariances, their roots, and products with these."""
        rows = sum(4.0 * n_edits * layer.rows * layer.d_out**2 for layer in self.layers)
        return rows + sum(EIGENVECTORS * d_out**3 for _, d_out in {(layer.d_in, layer.d_out) for layer in self.layers})

    def memit(self, n_edits: int, settings: MemitSettings) -> Work:
        """Return what MEMIT or a relative takes for a group, all of Adam's steps taken.

        Every edit is put into several contexts. The steps begin after the last edited block; the layers are then
        edited one after the other, each after a forward pass over all contexts.
        """
        prefixes = len(settings.prefix_starts)
        contexts = prefixes + 2  # The bare prompt and, after "{subject} is a", the essence.
        longer = 1 + prefixes * settings.prefix_tokens / (contexts * self.network.lengths.sequence)
        later = self.network.forward_from(self.first + len(self.layers))
        passes = 2 * settings.steps * later + (1 + len(self.layers)) * self.network.forward
        systems = sum(linear_system(n_edits, layer.d_in, layer.d_out, dual=False) for layer in self.layers)
        if settings.update == "null_space":
            systems += sum(EIGENVECTORS * layer.d_in**3 for layer in self.layers)
        return Work(n_edits * contexts * longer * passes, systems)

    def covariance(self, tokens: float) -> Work:
        """Return what collecting the covariance of MEMIT's keys takes, on ``tokens`` tokens of text."""
        passes = self.network.forward / self.network.lengths.sequence
        return Work(tokens * passes, sum(2.0 * tokens * layer.d_in**2 for layer in self.layers))


def linear_system(rows: float, d_in: int, d_out: int, dual: bool = True) -> float:
    """Operations to form and factorise a layer's normal equation, and to solve it forward and backward.

    Args:
        rows: n.
        d_in: width of the keys.
        d_out: width of the values.
        dual: whether the n x n form is used where n < d_in.
    """
    size, other = (rows, float(d_in)) if dual and rows < d_in else (float(d_in), rows)
    return 2 * size**2 * other + size**3 / 3 + 4 * size**2 * d_out + 4 * rows * d_in * d_out


def outer_products(rows: float, d_in: int, d_out: int) -> float:
    """Operations of the sum of a layer's rank-1 shifts, and of its gradient."""
    return 6 * rows * d_in * d_out
