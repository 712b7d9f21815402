"""How varied the text is that a model writes by itself: n-gram entropy, and examples to read."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from malmen.config.base import BatchSize
from malmen.models.generation import continuations, text_of
from malmen.models.language_model import LanguageModel

OPENINGS = (
    "The old bridge over the river",
    "In the morning the market",
    "Scientists have found that",
    "The history of the city begins",
    "My favourite season is",
    "A good teacher should",
    "The ship left the harbour and",
    "The government announced on Monday that",
)
"""What the model continues, in its form; they name nothing that people edit."""
LENGTH = 60
"""Tokens of a continuation at most."""
SHOWN = 3
"""How many continuations a report shows."""
WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""The weight of the entropy of n-grams of each n, as in ROME (Meng et al., 2022)."""


@dataclass(frozen=True)
class Written:
    """What a model wrote by itself.

    Attributes:
        texts: its continuations of the first :data:`SHOWN` of :data:`OPENINGS`.
        entropy: mean n-gram entropy of the tokens of all continuations, in bits.
    """

    texts: list[str]
    entropy: float


def write_freely(model: LanguageModel, when: str, batch_size: BatchSize = "auto") -> Written:
    """Let a model continue :data:`OPENINGS` greedily.

    Args:
        model: the language model, which gives its answers as text.
        when: "before the edit" or "after the edit", for progress lines.
        batch_size: continuations that run at once.
    """
    said = continuations(model, OPENINGS, [LENGTH] * len(OPENINGS), f"writing {when}", batch_size)
    return Written([text_of(model, tokens) for tokens in said[:SHOWN]], fmean(map(ngram_entropy, said)))


def ngram_entropy(tokens: Sequence[Hashable]) -> float:
    """Return the weighted mean of the entropies of bigrams and trigrams, in bits; 0 if there are none.

    The formula is that of the fluency of ROME and MEMIT: (2/3 H_2 + 4/3 H_3) / 2. They take words, sampled from
    the model; these are the model's own tokens, so that it holds for every language, and values compare only within one
    model.
    """
    triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    grams: dict[int, list[Hashable]] = {2: list(pairwise(tokens)), 3: list(triples)}
    return fmean(weight * entropy(grams[n]) for n, weight in WEIGHTS.items())


def entropy(items: Sequence[Hashable]) -> float:
    """Return the entropy of the frequencies of items, in bits."""
    shares = [count / len(items) for count in Counter(items).values()]
    return sum(-share * math.log2(share) for share in shares) + 0.0
