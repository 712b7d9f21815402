"""Where the subject of an edit stands in its prompt: MEMIT edits at the subject's last token."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from malmen.data.tuples import EditTuple
from malmen.errors import UserError

Found = Literal["stated", "overlap", "nowhere"]
"""How a subject was found: as the tuple states it, as what all of the tuple's prompts share, or not at all."""


@dataclass(frozen=True)
class SubjectSpan:
    """The characters ``start`` to ``end`` (exclusive) of a prompt, and how they were found to be its subject."""

    start: int
    end: int
    found: Found


def locate_subject(item: EditTuple) -> SubjectSpan:
    """Return where the subject stands in an edit's prompt.

    A tuple may state its subject. If it does not, or the prompt does not hold it, the subject is taken to be what the
    prompt has in common with its equivalents. If that is nothing either, the edit is made at the prompt's last token:
    left out, it would make the editor look as if it had been asked for fewer facts than the others.
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
    """Return where ``part`` stands in ``text``: as whole words if it can be, in the same case if it can be."""
    literal = re.escape(part.strip())
    for flags in (re.NOFLAG, re.IGNORECASE):
        for pattern in (rf"(?<!\w){literal}(?!\w)", literal):
            if found := re.search(pattern, text, flags):
                return found.span()
    return None


def longest_overlap(prompt: str, equivalents: Sequence[str]) -> tuple[int, int] | None:
    """Return the longest run of words (in characters) of a prompt that all of its equivalents hold, whatever the case.

    Of several that are equally long, the last: a question names its subject late.
    """
    words = [match.span() for match in re.finditer(r"\w+", prompt)]
    others = [" ".join(["", *re.findall(r"\w+", other.casefold()), ""]) for other in equivalents]
    runs = [(first[0], last[1]) for i, first in enumerate(words) for last in words[i:]]
    for start, end in sorted(runs, key=lambda run: (run[1] - run[0], run[0]), reverse=True):
        run = " ".join(["", *re.findall(r"\w+", prompt[start:end].casefold()), ""])
        if all(run in other for other in others):
            return start, end
    return None


def last_token_of(tokenizer: PreTrainedTokenizerBase, text: str, end: int) -> tuple[list[int], int]:
    """Encode a text; return its tokens, and the position of the last one that holds any of ``text[end - 1]``.

    Raises:
        UserError: if the tokenizer does not tell which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"MEMIT needs to know which characters a token stands for, which {type(tokenizer).__name__} does not tell; "
            "give the model a fast tokenizer (a tokenizer.json)."
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    holding = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if start < end <= stop]
    return encoded["input_ids"], holding[-1] if holding else len(encoded["input_ids"]) - 1
