"""Finding the subject of an edit in its prompt: MEMIT edits at the subject's last token."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from malmen.data.tuples import EditTuple
from malmen.errors import UserError
from malmen.models.encoding import EncodedText

Found = Literal["stated", "overlap", "nowhere"]
"""How a subject was found: as the tuple states it, as the words that all its prompts share, or not at all."""


@dataclass(frozen=True)
class SubjectSpan:
    """The characters ``start`` to ``end`` (exclusive) of a prompt, and how they were found to be its subject."""

    start: int
    end: int
    found: Found


def locate_subject(item: EditTuple) -> SubjectSpan:
    """Return where the subject is in an edit's prompt.

    A tuple may state its subject. If it does not, or the prompt does not contain it, the subject is the longest run of
    words that the prompt shares with its equivalents. If there is none, the edit is made at the prompt's last token:
    skipping it would compare MEMIT on fewer facts than the other editors.
    """
    stated = find_text(item.edit.prompt, item.subject) if item.subject else None
    span = stated or longest_overlap(item.edit.prompt, item.equivalent)
    if span is None:
        return SubjectSpan(len(item.edit.prompt) - 1, len(item.edit.prompt), "nowhere")
    return SubjectSpan(*span, "stated" if stated else "overlap")


def count_found(spans: Sequence[SubjectSpan]) -> dict[Found, int]:
    """Return how many subjects were found in which way."""
    counts = Counter(span.found for span in spans)
    return {how: counts[how] for how in ("stated", "overlap", "nowhere")}


def find_text(text: str, part: str) -> tuple[int, int] | None:
    """Return where ``part`` is in ``text``, preferably in the same case, and preferably as whole words."""
    literal = re.escape(part.strip())
    for flags in (re.NOFLAG, re.IGNORECASE):
        for pattern in (rf"(?<!\w){literal}(?!\w)", literal):
            if found := re.search(pattern, text, flags):
                return found.span()
    return None


def longest_overlap(prompt: str, equivalents: Sequence[str]) -> tuple[int, int] | None:
    """Return the longest run of words (in characters) of a prompt that all equivalents contain, ignoring case.

    Of several equally long runs it is the last, since a question names its subject late.
    """
    words = [match.span() for match in re.finditer(r"\w+", prompt)]
    others = [" ".join(["", *re.findall(r"\w+", other.casefold()), ""]) for other in equivalents]
    runs = [(first[0], last[1]) for i, first in enumerate(words) for last in words[i:]]
    for start, end in sorted(runs, key=lambda run: (run[1] - run[0], run[0]), reverse=True):
        run = " ".join(["", *re.findall(r"\w+", prompt[start:end].casefold()), ""])
        if all(run in other for other in others):
            return start, end
    return None


def last_token_before(text: EncodedText, end: int) -> int:
    """Return the position of the last token that begins before character ``end`` of a text.

    Raises:
        UserError: if the tokenizer cannot map tokens to characters.
    """
    if text.spans is None:
        raise UserError(
            "MEMIT needs a tokenizer that maps tokens to characters; give the model a fast tokenizer (a "
            "tokenizer.json), or use another editor."
        )
    before = [i for i in range(text.begin, len(text.tokens)) if text.spans[i][0] < end]
    return before[-1] if before else text.begin
