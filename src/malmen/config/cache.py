"""The cache of what all runs on a model share."""

from pydantic import PositiveFloat, PositiveInt

from malmen.config.base import Section

CACHE_GB = 100.0
"""How large a cache may be, unless a configuration says otherwise."""


class Cache(Section):
    """What all runs on a model share, in files that may be deleted afterwards; changes a step by rounding only.

    Keys and value gradients of edits, and hidden states of all prompts before the first edited block and after the
    last, in the model's own precision. The times of training and editing are then those of the rest.
    """

    max_gb: PositiveFloat = CACHE_GB
    """How large one model's cache of one split may be, in GB; a larger one is refused before it is made."""
    min_runs: PositiveInt = 4
    """It is made only if at least this many runs (an editor, an m, a seed) use it."""
