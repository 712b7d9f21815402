"""Finding a name in a text that writes it a little differently."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate

ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02b9\u02bb\u02bc\u0060\u00b4\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
    }
)
"""Apostrophes, quotation marks and dashes, which keyboards and word processors write in many ways."""
INVISIBLE = "\u00ad\u200b\u2060\ufeff"
"""A soft hyphen, and spaces and joints of no width."""


def find(part: str, text: str) -> tuple[int, int] | None:
    """Return where a text holds a part, as its first character and the one after its last; None if it does not.

    Ignored are case, kinds and number of spaces, kinds of apostrophes, quotation marks and dashes, and whether accents
    are characters of their own; but an accent is never left out. A place that is literally the part comes first, and
    among places that are alike one of whole words.
    """
    for literal in whole_words_first(part.strip() or part):
        for found in re.finditer(literal, text):
            if not unicodedata.combining(text[found.end() : found.end() + 1] or " "):
                return found.span()
    letters = list(letters_of(text))
    folded = [fold(text[start:end]) for start, end in letters]
    starts = dict(zip(accumulate(map(len, folded), initial=0), letters, strict=False))
    ends = dict(zip(accumulate(map(len, folded)), letters, strict=True))
    wanted = fold("".join(part[start:end] for start, end in letters_of(part.strip())))
    for pattern in whole_words_first(wanted):
        for found in re.finditer(pattern, "".join(folded)):
            if found.start() in starts and found.end() in ends:
                return starts[found.start()][0], ends[found.end()][1]
    return None


def whole_words_first(part: str) -> tuple[str, ...]:
    """Return regular expressions for a part of a text: as whole words, then anywhere; none for an empty part."""
    literal = re.escape(part)
    return (rf"(?<!\w){literal}(?!\w)", literal) if part else ()


def letters_of(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each letter with its accents, and each run of spaces, starts and ends; pass over the invisible."""
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and (
            unicodedata.combining(text[end]) if not text[start].isspace() else text[end].isspace()
        ):
            end += 1
        if text[start] not in INVISIBLE:
            yield start, end
        start = end


def fold(text: str) -> str:
    """Return a text in which what :func:`find` ignores is the same."""
    text = unicodedata.normalize("NFD", text).translate(ALIKE).casefold()
    return re.sub(r"\s+", " ", unicodedata.normalize("NFD", text))
