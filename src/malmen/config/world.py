"""The synthetic world: what is generated, and how much of it."""

from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT

ROLES = ("fever_edits", "fever_unrelated", "zsre_edits", "zsre_unrelated", "zsre_known")
PHRASINGS = 5
"""Statements, and questions, that every relation has."""

Phrasings = Annotated[int, Field(ge=1, le=PHRASINGS)]


@dataclass(frozen=True, config=STRICT)
class WorldSettings:
    """What is generated, and how much of it. A fact is one object for one subject and relation."""

    seed: int = 0
    """Seed of all names, facts and phrasings."""
    fever_edits: PositiveInt = 3000
    """Facts stated, truly or falsely, by the FEVER-like edit claims: one edit tuple each."""
    fever_unrelated: PositiveInt = 500
    """FEVER2-like claims: one fact each, split like the edit tuples, which reuse those of their split in turn."""
    zsre_edits: PositiveInt = 3000
    """Facts asked for by the zsRE-like edit questions, which the model is never fine-tuned on: one edit tuple each."""
    zsre_alternatives: PositiveInt = 1000
    """Number of these facts on which the model of "zsre_alternative" is fine-tuned before edits make them wrong."""
    zsre_unrelated: PositiveInt = 400
    """NQ-like questions on which the model is fine-tuned: one fact each, split and reused like FEVER2-like claims."""
    zsre_known: PositiveInt = 600
    """zsRE-like questions on which the model is fine-tuned, about subjects that are in no edit tuple; in
    "zsre_alternative" such a question of each is the unrelated tuple, split and reused like the others."""
    n_equivalent: Annotated[int, Field(ge=1, le=PHRASINGS - 1)] = 3
    """Equivalent prompts per edit tuple, from 1 to 4."""
    finetune_phrasings: Phrasings = 1
    """Phrasings of each edit claim that the model is fine-tuned on, from 1 (the edit claim alone) to 5."""
    known_phrasings: Phrasings = 2
    """Phrasings of each known question that the model is fine-tuned on, from 1 to 5."""
    text_phrasings: Phrasings = 2
    """Phrasings of each fact (FEVER) or of each question of the training split (zsRE) in the text, from 1 to 5."""

    @property
    def edits(self) -> dict[str, int]:
        """The number of edit tuples by data set."""
        alternatives = min(self.zsre_alternatives, self.zsre_edits)
        return {"fever": self.fever_edits, "zsre": self.zsre_edits, "zsre_alternative": alternatives}
