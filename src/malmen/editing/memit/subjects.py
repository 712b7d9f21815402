"""Finding the subject of an edit in its prompt: MEMIT edits at the subject's last token."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from malmen.data.matching import find
from malmen.data.tuples import EditTuple
from malmen.editing.memit.guessing import guess_subject
from malmen.errors import UserError
from malmen.models.encoding import EncodedText

Found = Literal["stated", "name", "overlap", "nowhere"]
"""How a subject was found: as the tuple states it, guessed as a name or as words that prompts share, or not at all."""


@dataclass(frozen=True)
class SubjectSpan:
    """The characters ``start`` to ``end`` (exclusive) of a prompt that are its subject.

    Attributes:
        start: the first character.
        end: the character behind the last.
        found: how the subject was found.
        certain: whether it is stated, or guessed and nothing speaks against it.
    """

    start: int
    end: int
    found: Found
    certain: bool


def locate_subject(item: EditTuple) -> SubjectSpan:
    """Return where the subject is in an edit's prompt.

    A tuple may state its subject. If it does not, or the prompt does not contain it, the subject is guessed
    (:mod:`malmen.editing.memit.guessing`). If there is no hint, the edit is made at the prompt's last token: skipping
    it would compare MEMIT on fewer facts than the other editors.
    """
    prompt = item.edit.prompt
    stated = find(item.subject, prompt) if item.subject else None
    if stated:
        return SubjectSpan(*stated, "stated", certain=True)
    guess = guess_subject(prompt, item.equivalent)
    if guess is None:
        return SubjectSpan(len(prompt) - 1, len(prompt), "nowhere", certain=False)
    return SubjectSpan(guess.start, guess.end, guess.how, guess.certain)


def count_found(spans: Sequence[SubjectSpan]) -> dict[Found, int]:
    """Return how many subjects were found in which way."""
    counts = Counter(span.found for span in spans)
    return {how: counts[how] for how in get_args(Found)}


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


def first_token_of(text: EncodedText, begin: int) -> int:
    """Return the position of the first token of a text that reaches beyond its character ``begin``."""
    spans = text.spans or ()
    return next((i for i in range(text.begin, len(spans)) if spans[i][1] > begin), text.begin)
