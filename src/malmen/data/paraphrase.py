"""Rephrasing claims by rule: a deterministic stand-in for the back-translation of the paper's data.

Back-translation (De Cao et al., 2021) needs two translation models; this needs none. It puts a claim into a sentence
frame ("It is true that ..."), and moves a date from the end to the front where that is safe. Neither changes whether
the claim is true. The rephrasings keep all words of the claim and are therefore easier than translated ones: GS on them
is not comparable with the paper's.
"""

import random
import re

from malmen.data.parsing import key

BEFORE = (
    "It is true that {}",
    "It has been reported that {}",
    "According to the record, {}",
    "As is well known, {}",
    "Sources say that {}",
    "One can read that {}",
)
AFTER = (
    "{}, as has been reported",
    "{}, according to the record",
    "{}, as is well known",
    "{}, sources say",
)
FRAMES = BEFORE + AFTER

# Words that are lower-cased inside a sentence. Others, and these before a capital, may begin a name ("The Last Song").
FUNCTION_WORDS = ("The", "There", "A", "An", "In", "On", "At", "During", "By", "For", "From", "With", "Both", "No")
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
# A date at the very end: "in 1997", "in June 1997", "on June 3, 2003", "on June 3rd, 2003".
FINAL_DATE = re.compile(rf"(.+\w) (in (?:{MONTH} )?\d{{4}}|on {MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})")
# The date belongs to the main clause when there is but one clause and it is in the past: none of these words occurs ...
OTHER_CLAUSE = re.compile(
    r"\b(?:who|whom|whose|that|which|when|where|before|after|until|since|only|someone|is|are|has|have|stars?|\d{4})\b"
)
# ... and none of these stands before the date, which would then say something else in front.
BOUND = re.compile(
    r"(?:\d|ing|(?<!was )(?<!were )(?<!not )born"
    r"|\b(?:was|were|and|or|but|than|not|back|early|late|later|once|sometime|between|first|last))$"
)
ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:Jr|Sr|Inc|Co|Ltd|St|Dr|Mr|Mrs))\.$")


def paraphrase(claim: str, count: int, seed: int) -> tuple[str, ...]:
    """Return ``count`` different rephrasings of a claim, none of them equal to it, chosen by seed and claim.

    Raises:
        ValueError: if ``count`` is less than 1 or more than there are frames.
    """
    if not 1 <= count <= len(FRAMES):
        raise ValueError(f"count must lie between 1 and {len(FRAMES)}, not {count}")
    body = claim if ABBREVIATION.search(claim) else claim.rstrip(" .,")
    inner = lower_first(body)
    candidates = [frame.format(inner) for frame in BEFORE] + [frame.format(body) for frame in AFTER]
    candidates += front_date(body)
    sentences = [text if text.endswith(".") else f"{text}." for text in candidates]
    different = [sentence for sentence in sentences if key(sentence) != key(claim)]
    return tuple(random.Random(f"{seed}/{claim}").sample(different, count))


def lower_first(sentence: str) -> str:
    """Lower-case the first word if it is a function word that does not seem to begin a name."""
    first, _, rest = sentence.partition(" ")
    if first in FUNCTION_WORDS and not rest[:1].isupper():
        return f"{first.lower()} {rest}"
    return sentence


def front_date(body: str) -> list[str]:
    """Return the sentence with its final date in front; an empty list if there is none or moving it is not safe."""
    match = FINAL_DATE.fullmatch(body)
    if match is None:
        return []
    rest, date = match.groups()
    begins_with_phrase = re.match(r"(?:In|On|At|During|By|After|Before|There)\b", rest)
    if begins_with_phrase or OTHER_CLAUSE.search(rest) or BOUND.search(rest):
        return []
    return [f"{date[0].upper()}{date[1:]}, {lower_first(rest)}"]
