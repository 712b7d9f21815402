"""How much is run, and kept, at once unless it is set: by the size of the model alone, so that two runs round alike.

torch is not imported: what a run will need is estimated by these as well.
"""

import math

from malmen.config.base import BatchSize

SIZE_OF_A_BATCH = 300_000
"""Sequences at once times blocks times width: 32 sequences for GPT-2."""
ROWS_IN_MEMORY = 2**26
"""Bytes that are kept of a group of edits in a computer's main memory."""
ROWS_AT_ONCE = 4096
"""So many cached rows are read and multiplied at once, where that takes little memory, however many there are."""


def power_of_two(value: float, at_most: int) -> int:
    """Return the largest power of two that is not above ``value``, between 1 and ``at_most``."""
    return min(at_most, 2 ** math.floor(math.log2(value))) if value > 1 else 1


def sequences_at_once(size: BatchSize, blocks: int, width: int) -> int:
    """Return how many sequences are run at once through a model of so many blocks of such a width."""
    return power_of_two(SIZE_OF_A_BATCH / (blocks * width), at_most=256) if size == "auto" else size


def rows_at_once(size: BatchSize, graph_bytes: int, row_bytes: int) -> int:
    """Return how many rows are run at once through a hyper-network whose graph takes so many bytes for each.

    A quarter of ``graph_bytes`` is for the graph, the rest for what its backward pass puts beside it.
    """
    return power_of_two(graph_bytes / (4 * row_bytes), at_most=ROWS_AT_ONCE) if size == "auto" else size
