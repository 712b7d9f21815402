"""FEVER and FEVER 2.0: claims that are supported or refuted, and the edit tuples made from them.

An edit reverses a claim's true label, on which the fact checker was fine-tuned (paper, 5.1). Claims whose truth is not
settled (NOT ENOUGH INFO) are dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.data.paraphrase import paraphrase
from malmen.data.parsing import group_by_text, reading, tidy
from malmen.data.tuples import EditTuple, PromptAnswer, enumerate_jsonl

OPPOSITE = {"SUPPORTS": "REFUTES", "REFUTES": "SUPPORTS"}
UNSETTLED = "NOT ENOUGH INFO"


@dataclass(frozen=True)
class FeverClaim:
    """A claim with its true label: SUPPORTS, REFUTES or NOT ENOUGH INFO.

    ``subject`` is the title of the first Wikipedia page given as evidence, nearly always the subject of the claim; None
    without evidence.
    """

    id: str
    text: str
    label: str
    subject: str | None

    @property
    def pair(self) -> PromptAnswer:
        """The claim with its true label."""
        return PromptAnswer(self.text, self.label)


def read_claims(path: Path) -> list[FeverClaim]:
    """Read a claims file of FEVER or of FEVER 2.0; a malformed record is a :class:`UserError` naming file and line."""
    claims = []
    for number, record in enumerate_jsonl(path):
        with reading(path, f"line {number}"):
            label = tidy(record["label"]).upper()
            if label != UNSETTLED and label not in OPPOSITE:
                raise ValueError(f"the label {record['label']!r} is not SUPPORTS, REFUTES or {UNSETTLED}")
            text, page = tidy(record["claim"]), first_page(record["evidence"])
            claims.append(FeverClaim(f"fever-{record['id']}", text, label, page))
    return claims


def first_page(evidence: Any) -> str | None:
    """Return the title of the first Wikipedia page in a record's evidence without escapes, or None.

    Evidence is a list of groups of items ``[annotation, evidence, page, sentence]``.

    Raises:
        TypeError, ValueError: if it is anything else.
    """
    try:
        pages = [item[2] for group in evidence for item in group]
    except (IndexError, KeyError, TypeError):
        raise ValueError(f"the evidence must consist of lists of four, not {evidence!r}") from None
    page = next(filter(None, pages), None)
    if page is None:
        return None
    return tidy(page).replace("_", " ").replace("-LRB-", "(").replace("-RRB-", ")").replace("-COLON-", ":")


def select(claims: Iterable[FeverClaim]) -> tuple[list[FeverClaim], dict[str, int]]:
    """Keep one settled claim per text; case, punctuation and spacing do not distinguish texts.

    Returns:
        The claims, in order, and how many were read, kept, and dropped as unsettled, repeated or contradictory (the
        same text with both labels: all its records are dropped).
    """
    everything = list(claims)
    settled = [claim for claim in everything if claim.label in OPPOSITE]
    groups, contradictory = group_by_text(settled, lambda claim: claim.text, lambda claim: claim.label)
    counts = {
        "read": len(everything),
        "dropped_not_enough_info": len(everything) - len(settled),
        "dropped_contradictory": contradictory,
        "dropped_repeated": len(settled) - contradictory - len(groups),
        "kept": len(groups),
    }
    return [group[0] for group in groups], counts


def edit_tuple(claim: FeverClaim, unrelated: PromptAnswer, n_equivalent: int, seed: int) -> EditTuple:
    """Make the edit that reverses a claim's label, with ``n_equivalent`` rephrasings by rule."""
    return EditTuple(
        id=claim.id,
        edit=PromptAnswer(claim.text, OPPOSITE[claim.label]),
        equivalent=paraphrase(claim.text, n_equivalent, seed),
        unrelated=unrelated,
        subject=claim.subject,
    )


def label(text: object) -> str:
    """Return SUPPORTS or REFUTES; raise ``TypeError`` or ``ValueError`` for anything else."""
    tidied = tidy(text).upper()
    if tidied not in OPPOSITE:
        raise ValueError(f"the label {text!r} is neither SUPPORTS nor REFUTES")
    return tidied


def settled_label(text: object) -> str:
    """Return a label; the public code of MALMEN counts every claim that is not supported as refuted."""
    return "REFUTES" if tidy(text).upper() == UNSETTLED else label(text)
