"""Default batch sizes. They depend on the model's size alone, so that two runs round alike.

This module does not import torch, because ``malmen plan`` uses it too.
"""

import math

from malmen.config.base import BatchSize

SIZE_OF_A_BATCH = 300_000
"""Sequences x blocks x width of a batch; this gives 32 sequences for GPT-2."""
ROWS_IN_MEMORY = 2**26
"""Largest size in bytes of the rows of a group of edits that main memory keeps."""
ROWS_AT_ONCE = 4096
"""Largest number of cached rows that are read and multiplied at once."""


def power_of_two(value: float, at_most: int) -> int:
    """Return the largest power of two up to ``value``, between 1 and ``at_most``."""
    return min(at_most, 2 ** math.floor(math.log2(value))) if value > 1 else 1


def sequences_at_once(size: BatchSize, blocks: int, width: int) -> int:
    """Return the batch size of a language model: ``size``, or if "auto" one that fits its blocks and width."""
    return power_of_two(SIZE_OF_A_BATCH / (blocks * width), at_most=256) if size == "auto" else size


def rows_at_once(size: BatchSize, graph_bytes: int, row_bytes: int) -> int:
    """Return the number of rows that run through a hyper-network at once: ``size``, or if "auto" what memory allows.

    The graph gets a quarter of ``graph_bytes``; its backward pass needs the rest.

    Args:
        size: the setting.
        graph_bytes: memory for graph and backward pass.
        row_bytes: size of the graph for one row.
    """
    return power_of_two(graph_bytes / (4 * row_bytes), at_most=ROWS_AT_ONCE) if size == "auto" else size
