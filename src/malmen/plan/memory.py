"""How much memory and disk the jobs of a configuration need, counted from shapes before anything runs.

Counted is what lies in memory at once at the fullest moment of a job: weights, cached rows, shifts, factors, the
hyper-network with Adam's moments, and the values that a batch keeps for its backward pass. Whatever an allocator wastes
comes on top (:data:`WASTE`). torch is not imported.
"""

import sys
from dataclasses import dataclass

from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import LONGEST_TEXT, CovarianceSettings, MemitEditorSettings, MemitSettings
from malmen.config.ultraedit import UltraEditEditorSettings
from malmen.models.batch_sizes import ROWS_AT_ONCE, ROWS_IN_MEMORY, rows_at_once, sequences_at_once
from malmen.plan.flops import EditorWork, Network

GIGABYTE = 1e9
FLOAT32 = 4
FLOAT64 = 8
WASTE = 1.25
"""Memory that an allocator takes, over what is asked of it: an assumption."""
ADAM = 4 * FLOAT32
"""Bytes for each trained number: itself, its gradient, and Adam's two moments."""
PROCESS = {"cpu": 0.7 * GIGABYTE, "cuda": 4 * GIGABYTE}
"""Main memory of a process that has loaded torch; with CUDA's libraries it is several times as much."""
LITTLE = 2 * GIGABYTE
"""Main memory of a job that runs no model."""


@dataclass(frozen=True)
class Needs:
    """What a job needs beside time, in bytes.

    Attributes:
        device: memory where the model runs: a GPU's, or on a CPU a part of the process's.
        least: the part of it without which the job cannot run: what is kept of a group of edits can lie in files.
        memory: main memory of the process.
        disk: what it writes.
    """

    device: float = 0.0
    memory: float = LITTLE
    disk: float = 0.0
    least: float = 0.0


class ModelFootprint:
    """The memory that a language model takes, in bytes.

    Args:
        network: its size.
        width: bytes of one weight.
        gpus: over how many devices it is spread; the memory is that of one of them.
    """

    def __init__(self, network: Network, width: int, gpus: int = 1) -> None:
        self.network, self.width, self.gpus = network, width, gpus

    @property
    def weights(self) -> float:
        """A device's share of its weights."""
        return self.network.parameters * self.width / self.gpus

    @property
    def file(self) -> float:
        """Its weights on disk, where they are in float32 unless they were published otherwise."""
        return float(self.network.parameters * FLOAT32)

    def batch(self, size: float, first: int = 0) -> float:
        """Return what a batch of sequences keeps from block number ``first`` on for its backward pass, with logits."""
        shape = self.network.shape
        ffn = (3 if shape.gated else 2) * shape.ffn_size
        tokens = sum(stack.tokens for stack in self.network.stacks)
        kept = size * tokens * (shape.blocks - first) * (9 * shape.hidden_size + ffn) * self.width
        classes = 1 if self.network.task == "fact_checking" else shape.vocabulary
        # Before and after, their log-softmax, and the gradients of both.
        return kept + 6 * size * self.network.lengths.answer * classes * FLOAT32

    def training(self, batch_size: int) -> float:
        """Return what training all parameters takes."""
        return self.network.parameters * (self.width + ADAM) / self.gpus + self.batch(batch_size)


class EditorFootprint:
    """The memory that an editor takes beside the language model, in bytes.

    Args:
        work: the editor on its network.
        width: bytes of one of the model's weights.
        on_gpu: whether the model runs on one; a quarter of its memory is then for what is kept of a group of edits.
        gpus: over how many of them the model is spread; all else is taken to lie on one.
        ranks: how many processes share the edits; the memory is that of one of them. Each keeps its share of the rows,
            and the factors of its layers; all else is taken to be whole in each.
    """

    def __init__(self, work: EditorWork, width: int, on_gpu: bool = False, gpus: int = 1, ranks: int = 1) -> None:
        self.work, self.model, self.on_gpu = work, ModelFootprint(work.network, width, gpus), on_gpu
        self.ranks = ranks
        self.settings, self.layers, self.width = work.settings, work.layers, width

    @property
    def hyper_network(self) -> float:
        """Number of the hyper-network's parameters."""
        settings = self.work.hypernetwork
        shapes = {(layer.d_in, layer.d_out) for layer in self.layers}
        widths = [d_in + d_out for d_in, d_out in shapes]
        own = sum(layer.d_in + layer.d_out for layer in self.layers)
        return float(settings.blocks * (sum(2 * settings.rank * w + w for w in widths) + 2 * own))

    @property
    def weights(self) -> float:
        """Number of the edited weights."""
        return float(sum(layer.size for layer in self.layers))

    def kept(self, n_edits: int, in_files: bool) -> float:
        """Return what a rank holds of the rows cached of ``n_edits`` edits, and of the factors of their systems.

        Beyond a budget they are in files, but for one factor; so they are with ``in_files``.
        """
        share = -(-n_edits // self.ranks)
        rows = sum(share * layer.rows * (layer.d_in + layer.d_out) for layer in self.layers)
        counts = [(n_edits * layer.rows, layer.d_in) for layer in self.layers]
        # With few rows, a system has a row and a column for each, in float64.
        factors = [FLOAT64 * n**2 if n < d_in else FLOAT32 * d_in**2 for n, d_in in counts]
        of_a_rank = max(sum(factors[rank :: self.ranks]) for rank in range(self.ranks))
        everything = FLOAT32 * rows + (0 if self.work.summed else of_a_rank)
        budget = self.work.rows_bytes
        if budget == "auto":
            budget = sys.maxsize if self.on_gpu else ROWS_IN_MEMORY
        in_memory = everything <= budget and not in_files
        return float(everything if in_memory else max(factors))

    def cache(self, n_tuples: int, prompts: int) -> float:
        """Return what files hold that all runs share, with so many prompts of each tuple."""
        rows = sum(layer.rows * (layer.d_in + layer.d_out) for layer in self.layers)
        network = self.work.network
        one_stack = len(network.stacks) == 1
        states = network.shape.hidden_size * (network.lengths.sequence + network.lengths.answer) if one_stack else 0
        return float(n_tuples * (rows + prompts * states) * self.width)

    def systems(self, n_edits: int) -> float:
        """Return what the solved systems of all layers hold: shifts, edited weights, value differences."""
        held = self.weights * (FLOAT32 + self.width)
        if self.work.summed:
            return held
        few = [(n, layer.d_out) for layer in self.layers if (n := n_edits * layer.rows) < layer.d_in]
        return held + FLOAT32 * sum(n * d_out for n, d_out in few)

    @property
    def batch(self) -> float:
        """What a batch of sequences keeps; where memory runs out, they become smaller."""
        shape = self.work.network.shape
        size = sequences_at_once(self.settings.batch_size, shape.blocks, shape.hidden_size)
        return self.model.batch(size, self.work.first)

    @property
    def row_batch(self) -> float:
        """What a batch of rows keeps in the hyper-network."""
        settings = self.work.hypernetwork
        widest = max(layer.d_in + layer.d_out for layer in self.layers)
        row = FLOAT32 * ((3 + 3 * settings.blocks) * widest + settings.blocks * settings.rank)
        return float(rows_at_once(settings.rows_per_batch, settings.graph_bytes, row) * row)

    def fullest(self, n_edits: int) -> float:
        """Return what some rows of a layer, and a system made of all, take while it is made."""
        pieces = [min(n_edits * layer.rows, ROWS_AT_ONCE) * layer.d_in for layer in self.layers]
        sides = [min(n_edits * layer.rows, layer.d_in) for layer in self.layers]
        return float(FLOAT32 * (max(pieces) + max(sides) ** 2))

    def training(self, n_edits: int, in_files: bool = False) -> float:
        """Return what a meta-step on ``n_edits`` edits takes, with the model."""
        gradients = self.weights * FLOAT32
        held = self.kept(n_edits, in_files) + self.systems(n_edits) + gradients + self.hyper_network * ADAM
        if self.work.training.rollout:  # the sum of the rounds before, and the weights with it
            held += self.weights * (FLOAT32 + self.width)
        batches = max(self.batch, self.row_batch) + self.work.hypernetwork.graph_bytes
        return WASTE * (self.model.weights + held + self.fullest(n_edits) + batches)

    def editing(self, n_edits: int, in_files: bool = False) -> float:
        """Return what editing a group of ``n_edits`` and measuring it takes, with the model."""
        if isinstance(self.settings, FineTuningEditorSettings):
            tuned = self.weights * (4 * self.width + 2 * FLOAT32)
            batch = self.model.batch(self.settings.finetuning.batch_size, self.work.first)
            return WASTE * (self.model.weights + tuned + batch)
        if isinstance(self.settings, MemitEditorSettings):
            return WASTE * (self.model.weights + self.memit(n_edits, self.settings.memit))
        held = self.kept(n_edits, in_files) + self.systems(n_edits) + self.fullest(n_edits)
        if isinstance(self.settings, HyperNetworkEditorSettings):
            held += self.hyper_network * FLOAT32
            return WASTE * (self.model.weights + held + max(self.batch, self.row_batch))
        if isinstance(self.settings, UltraEditEditorSettings):
            held += self.statistics
        # An editor of another package is taken to keep its rows, and to solve a system, like MALMEN.
        return WASTE * (self.model.weights + held + self.batch)

    @property
    def statistics(self) -> float:
        """What UltraEdit knows of the rows of each weight shape, before and after a round; with whitening, in work."""
        shapes = {(layer.d_in, layer.d_out) for layer in self.layers}
        covariances = sum(4 * FLOAT64 * d_out**2 for _, d_out in shapes)
        whitened = isinstance(self.settings, UltraEditEditorSettings) and self.settings.ultraedit.whitening
        return float(sum(4 * FLOAT32 * (d_in + d_out) for d_in, d_out in shapes) + (covariances if whitened else 0))

    def memit(self, n_edits: int, settings: MemitSettings) -> float:
        """Return what MEMIT or a relative takes: one system at a time in float64, and a batch in all contexts."""
        matrices = 4 if settings.update == "least_squares" and not settings.remember else 6
        system = matrices * 8 * max(layer.d_in**2 for layer in self.layers)
        keys = n_edits * max(3 * layer.d_in + 4 * layer.d_out for layer in self.layers) * FLOAT32
        contexts = len(settings.prefix_starts) + 2
        batch = self.model.batch(settings.batch_size * contexts, self.work.first)
        return system + keys + self.weights * (FLOAT32 + self.width) + batch

    @property
    def covariance(self) -> float:
        """The covariance of MEMIT's keys on disk; while it is collected, it lies in main memory in float64."""
        return float(sum(layer.d_in**2 for layer in self.layers)) * FLOAT32

    def collecting(self, settings: CovarianceSettings) -> float:
        """Return what collecting the covariance takes, with the model."""
        largest = max(layer.d_in for layer in self.layers)
        # Sequences of ordinary text are longer than those of the edits: as long as the model reads, at most this.
        tokens = LONGEST_TEXT / self.work.network.lengths.sequence
        one_block = self.model.batch(settings.batch_size * tokens, self.work.network.shape.blocks - 1)
        return WASTE * (self.model.weights + one_block + 2 * FLOAT32 * largest**2)
