"""Normalised exact match, as in SQuAD (Rajpurkar et al., 2016): two answers agree if little but their form differs."""

import re
import string

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(answer: str) -> str:
    """Return an answer in lower case, without ASCII punctuation and English articles, with single spaces.

    An answer of which nothing is left, such as "The" or "?", keeps its articles and punctuation.
    """
    lower = " ".join(answer.lower().split())
    return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split()) or lower


def exact_match(said: str, answer: str) -> bool:
    """Return whether what a model said is the answer, both normalised."""
    return normalised(said) == normalised(answer)
