"""The minimum of operations and bytes that one meta-step of MALMEN needs, from the shapes of the models.

It counts multiplications and additions of matrix products in the paper's setting: the second FFN layers of the last six
blocks, rank 1920, two blocks in the hyper-network, 16 tokens a sequence, 3 answer tokens (a claim: one row). The same
rules apply to the official layout: the ratio is the largest possible speed-up at equal precision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import BertConfig, GPT2Config, GPTJConfig

LENGTH, EDITED, RANK = 16, 6, 1920
POINTS = [("bert-base", 64), ("bert-base", 512), ("bert-base", 4096), ("gpt2", 64), ("gpt2", 512), ("gpt2", 4096)]
POINTS += [("gpt-j", 16_384)]


@dataclass(frozen=True)
class Shape:
    """The shape of a model: width d, blocks, size of the output head, answer rows per tuple, bytes of a weight."""

    width: int
    blocks: int
    head: int
    answers: int
    weight_bytes: int

    @property
    def block(self) -> int:
        """Weights of a block: 4 d^2 of attention and 8 d^2 of the feed-forward network."""
        return 12 * self.width**2

    @property
    def attention(self) -> int:
        """Operations of a token's scores and mixed values in one block."""
        return 4 * LENGTH * self.width


def shapes() -> dict[str, Shape]:
    """Return the shapes of the published models from transformers."""
    bert, gpt2, gptj = BertConfig(), GPT2Config(), GPTJConfig()
    return {
        "bert-base": Shape(bert.hidden_size, bert.num_hidden_layers, bert.hidden_size, 1, 4),
        "gpt2": Shape(gpt2.n_embd, gpt2.n_layer, gpt2.n_embd * gpt2.vocab_size, 3, 4),
        "gpt-j": Shape(gptj.n_embd, gptj.n_layer, gptj.n_embd * gptj.vocab_size, 3, 2),
    }


Counts = dict[str, float]


def language_model(shape: Shape, m: int) -> tuple[Counts, Counts]:
    """Return the operations of the language model's passes: the minimum, and those of the official layout."""
    tokens, rows = m * LENGTH, m * shape.answers
    block, spared = through_block(shape, m), spared_in_last(shape, m)
    trunk = (shape.blocks - EDITED) * block
    head, weights = 2 * rows * shape.head, EDITED * 2 * tokens * 4 * shape.width**2
    # With few rows, K dL/dS needs no dL/dS; the last layer's inputs count at the answer rows.
    gradients = min(2 * 4 * shape.width**2, 2 * rows * 5 * shape.width) * ((EDITED - 1) * tokens + rows)
    all_heads = head if shape.answers == 1 else 2 * tokens * shape.head
    least: Counts = {
        "blocks before the edited ones": 3 * trunk,
        "edited blocks, forward": 4 * (EDITED * block - spared),
        "edited blocks, backward": 2 * ((EDITED - 1) * block - spared) + back_to_edits(shape, m),
        "weight gradients": 2 * gradients,
        "output head": 7 * head,
    }
    official: Counts = {
        "blocks before the edited ones": 4 * trunk,
        "edited blocks, forward": 4 * EDITED * block,
        "edited blocks, backward": 3 * (EDITED - 1) * block,
        "weight gradients": 3 * weights,
        "output head": 7 * all_heads,
    }
    return least, official


def through_block(shape: Shape, m: int) -> float:
    """Return operations of a pass of m sequences through a block."""
    return m * LENGTH * (2 * shape.block + shape.attention)


def spared_in_last(shape: Shape, m: int) -> float:
    """Return the operations that the last block saves, because its feed-forward network runs on answer rows only."""
    return m * (LENGTH - shape.answers) * 2 * 8 * shape.width**2


def back_to_edits(shape: Shape, m: int) -> float:
    """Return the operations of the backward pass to the edits' value gradients.

    For a question, it runs over the answer rows only, because they are at the end.
    """
    whole = (EDITED - 1) * through_block(shape, m)
    return whole * shape.answers / LENGTH if shape.answers > 1 else whole - spared_in_last(shape, m)


def shared(shape: Shape, m: int) -> float:
    """Return the operations of a step's minimum that a cache saves, because all runs of a grid share them.

    They are the blocks before the edited ones, the edits' passes, and the unrelated tuples' pass before the edit
    (without its head).
    """
    least, _ = language_model(shape, m)
    # Two of four forward passes, and the edits' two of the head's seven.
    forward, head = least["edited blocks, forward"] / 2, least["output head"] * 2 / 7
    return least["blocks before the edited ones"] + forward + back_to_edits(shape, m) + head


def editor(shape: Shape, m: int) -> tuple[Counts, Counts]:
    """Return the operations of hyper-network and aggregation: the minimum, and those of the official layout."""
    n, d_in, d_out = m * shape.answers, 4 * shape.width, shape.width
    product = 2 * n * (d_in + d_out) * RANK
    # Four products forward; backward seven, for the first block's input needs no gradient. Officially twice forward.
    least = {
        "hyper-network": EDITED * 11 * product,
        "normal equations": EDITED * min(primal(n, d_in, d_out), dual(n, d_in, d_out)),
    }
    official = {"hyper-network": EDITED * 15 * product, "normal equations": EDITED * solved_twice(n, d_in, d_out)}
    return least, official


def primal(n: int, d_in: int, d_out: int) -> float:
    """Gram matrix (half of it), Cholesky, K^T D, K M, and two solutions for d_out columns."""
    return n * d_in**2 + d_in**3 / 3 + 4 * n * d_in * d_out + 4 * d_in**2 * d_out


def dual(n: int, d_in: int, d_out: int) -> float:
    """The same with n unknowns: K K^T, Cholesky, K^T C and K G, and three solutions."""
    return n**2 * d_in + n**3 / 3 + 4 * n * d_in * d_out + 6 * n**2 * d_out


def solved_twice(n: int, d_in: int, d_out: int) -> float:
    """Gram matrix, LU and solution, twice, with K^T D and K M."""
    return 2 * (2 * n * d_in**2 + 2 * d_in**3 / 3 + 2 * d_in**2 * d_out) + 4 * n * d_in * d_out


def traffic(shape: Shape, m: int) -> Counts:
    """Return the minimum memory traffic in bytes: each matrix once for each use."""
    n, size = m * shape.answers, 5 * shape.width
    weights = shape.blocks * shape.block + (0 if shape.answers == 1 else shape.head)
    edited = (EDITED * shape.block + (0 if shape.answers == 1 else shape.head)) / (shape.blocks * shape.block)
    parameters = 2 * 2 * size * RANK
    return {
        "keys and value gradients, written and read three times": 4 * 4 * EDITED * n * size,
        "the model's weights, once a pass": weights * shape.weight_bytes * (3 + 4 * min(1.0, edited)),
        "hyper-network and Adam": 4 * parameters * (2 * EDITED + 8),
    }


def floor_table() -> list[str]:
    """Return the lines of the table of operations and bytes."""
    columns = {}
    for name, m in POINTS:
        shape = shapes()[name]
        parts = [language_model(shape, m), editor(shape, m)]
        least = parts[0][0] | parts[1][0]
        official = parts[0][1] | parts[1][1]
        columns[f"{name}, {m:,}"] = (least, official, traffic(shape, m))
    names = list(next(iter(columns.values()))[0])
    lines = head("10¹² operations: minimum (official layout)", columns)
    for part in names:
        lines.append(row(part, [f"{number(c[0][part])} ({number(c[1][part])})" for c in columns.values()]))
    sums = [(sum(least.values()), sum(official.values())) for least, official, _ in columns.values()]
    lines.append(row("**total**", [f"**{number(a)} ({number(b)})**" for a, b in sums]))
    lines.append(row("**official / minimum**", [f"**{b / a:.2f}**" for a, b in sums]))
    for part in next(iter(columns.values()))[2]:
        lines.append(row(f"GB: {part}", [f"{c[2][part] / 1e9:.3g}" for c in columns.values()]))
    return lines


def number(operations: float) -> str:
    """Format a number of operations in units of 10^12."""
    return f"{operations / 1e12:.3g}" if operations < 1e15 else f"{operations / 1e12:,.0f}"


def row(first: str, cells: Iterable[Any]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join([first, *map(str, cells)]) + " |"


def head(first: str, cells: Iterable[Any]) -> list[str]:
    """Return the two lines that begin a Markdown table."""
    names = [*cells]
    return [row(first, names), row("---", ["---:"] * len(names))]


def operations(point: dict[str, Any], what: str) -> tuple[float, float]:
    """Return the minimum and the official operations of a training step, of a whole edit, or of its aggregation."""
    shape, m = shapes()[point["model"]], point["n_edits"]
    if what.startswith("training step"):
        parts = [language_model(shape, m), editor(shape, m)]
        spared = shared(shape, m) if "cache" in what else 0
        return sum(sum(p[0].values()) for p in parts) - spared, sum(sum(p[1].values()) for p in parts)
    n, d_in, d_out = m * shape.answers, 4 * shape.width, shape.width
    refined = EDITED * 4 * 2 * n * (d_in + d_out) * RANK
    least = refined + EDITED * min(primal_once(n, d_in, d_out), dual_once(n, d_in, d_out))
    official = refined + EDITED * solved_twice(n, d_in, d_out) / 2
    if what == "aggregation":
        return least, official
    caching = caching_passes(shape, m)
    return least + caching[0], official + caching[1]


def caching_passes(shape: Shape, m: int) -> tuple[float, float]:
    """Return the operations of the passes that cache an edit's rows: the minimum, and those of the official layout."""
    least, official = language_model(shape, m)
    forward = shape.blocks * through_block(shape, m)
    few = forward - spared_in_last(shape, m) + back_to_edits(shape, m) + least["output head"] * 2 / 7
    backward = official["edited blocks, backward"] / 3 + official["weight gradients"] / 3
    return few, forward + backward + official["output head"] * 2 / 7


def primal_once(n: int, d_in: int, d_out: int) -> float:
    """Operations of a shift alone: Gram matrix, Cholesky, K^T D and a solution."""
    return n * d_in**2 + d_in**3 / 3 + 2 * n * d_in * d_out + 2 * d_in**2 * d_out


def dual_once(n: int, d_in: int, d_out: int) -> float:
    """The same with n unknowns."""
    return n**2 * d_in + n**3 / 3 + 2 * n * d_in * d_out + 2 * n**2 * d_out
