"""The data sources: the synthetic world, and files of finished tuples."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from malmen.errors import UserError

ROLES = ("fever_edits", "fever_unrelated", "zsre_edits", "zsre_unrelated", "zsre_known")
PHRASINGS = 5
"""Statements, and questions, that every relation has."""
TUPLE_FILES = {
    "authors": {
        "fever": ("authors_fever_train", "authors_fever_eval"),
        "zsre": ("authors_zsre_train", "authors_zsre_eval"),
        "zsre_alternative": ("authors_zsre_train", "authors_zsre_eval"),
    },
    "mend": {
        "zsre": ("mend_zsre_train", "mend_zsre_eval"),
        "zsre_alternative": ("mend_zsre_train", "mend_zsre_eval"),
    },
}
"""The files of finished tuples by source and data set: for training and for evaluation, by name in the registry."""


def training_shares(shares: Mapping[str, int]) -> dict[str, int]:
    """Return the shares of a file none of which is for validation."""
    return {**shares, "validation": 0}


@dataclass(frozen=True)
class WorldSettings:
    """What is generated, and how much of it. A fact is one object for one subject and relation."""

    seed: int = 0
    """Seed of all names, facts and phrasings."""
    fever_edits: int = 3000
    """Facts stated, truly or falsely, by the FEVER-like edit claims: one edit tuple each."""
    fever_unrelated: int = 500
    """FEVER2-like claims: one fact each, dealt to the splits and reused by the edit tuples of a split in turn."""
    zsre_edits: int = 3000
    """Facts asked for by the zsRE-like edit questions, never taught to the model: one edit tuple each."""
    zsre_alternatives: int = 1000
    """So many of these facts, or all, are taught and then edited to wrong ones in the data set "zsre_alternative"."""
    zsre_unrelated: int = 400
    """NQ-like questions: one fact each, taught, dealt to the splits and reused like the FEVER2-like claims."""
    zsre_known: int = 600
    """Facts that the model is taught as zsRE-like questions, about subjects that are in no edit tuple; in
    "zsre_alternative" such a question of each is the unrelated tuple, dealt and reused like the others."""
    n_equivalent: int = 3
    """Equivalent prompts per edit tuple, from 1 to 4."""
    taught_phrasings: int = 1
    """Phrasings of each edit claim taught with its label, from 1 (the edit claim alone) to 5."""
    known_phrasings: int = 2
    """Phrasings of each known question taught with its answer, from 1 to 5."""
    text_phrasings: int = 2
    """Phrasings of each fact (FEVER) or of each question of the training split (zsRE) in the text, from 1 to 5."""

    def __post_init__(self) -> None:
        """Raise :class:`UserError` unless every number lies in its range."""
        counts = dict.fromkeys((*ROLES, "zsre_alternatives"), float("inf"))
        ranges = counts | {"n_equivalent": float(PHRASINGS - 1)}
        for item in fields(self)[1:]:
            value, largest = getattr(self, item.name), ranges.get(item.name, PHRASINGS)
            if not 1 <= value <= largest:
                allowed = "at least 1" if largest == float("inf") else f"from 1 to {largest}"
                raise UserError(f"The world's setting {item.name} is {value}; make it {allowed}.")

    @property
    def edits(self) -> dict[str, int]:
        """The number of edit tuples by data set."""
        alternatives = min(self.zsre_alternatives, self.zsre_edits)
        return {"fever": self.fever_edits, "zsre": self.zsre_edits, "zsre_alternative": alternatives}
