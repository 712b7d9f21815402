"""Guessing the subject of an English prompt that states none, from its names and its rephrasings.

MEMIT needs to know where the subject ends. The subject is taken to be, in this order:

1. the only quoted part of the prompt;
2. its longest name: a run of words with a capital letter or a digit ("Duke of Albany" is one, since "of" joins names);
3. the longest run of words that the prompt shares with its equivalents, without question words, articles, auxiliaries
   and the like at its ends.

A guess is *certain* if nothing speaks against it: it is the only name, all equivalents contain it, and no word behind
it may belong to it ("the status of Bali myna").
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


def word_set(words: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(words.split())


AUXILIARIES = word_set(
    "is are was were be been being am do does did has have had will would can could shall should may might must"
)
FUNCTION_WORDS = AUXILIARIES | word_set(
    "a an the this that these those what which who whom whose when where why how in on at by of for from to with into "
    "about as it its he she his her him they them their there and or but not no if then than so such"
)
PARTICLES = word_set(
    "of the and & de la le les du des da do das dos del della di van von der den zu y e et und och al el bin ibn ben "
    "st av af"
)
"""Small words inside names."""
PREPOSITIONS = word_set("in on at for to from with by as a an or")
"""Small words inside titles; they join names only where an equivalent repeats the whole."""
JOINING = 3
"""Largest number of small words between two parts of a name."""
QUOTED = re.compile(r'"([^"]+)"|“([^“”]+)”|«([^«»]+)»')
POSSESSIVE = re.compile(r"['’]s?$")
AROUND_WORDS = "\"'“”‘’«»,;:"


@dataclass(frozen=True)
class Guess:
    """The characters ``start`` to ``end`` (exclusive) of a prompt that are probably its subject."""

    start: int
    end: int
    how: Literal["name", "overlap"]
    certain: bool


class Words:
    """The words of a text.

    Attributes:
        spans: the characters of each word, without punctuation around it.
        keys: each word in the form in which words are compared.
        capital: whether each word has a capital letter.
        names: whether each word looks like a part of a name: it has a capital letter or a digit.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        length = len(text.rstrip())
        length -= text[:length].endswith(("?", ".", "!"))  # One sign only: "Who directed Keystones!?"
        found = (match.span() for match in re.finditer(r"\S+", text[:length]))
        self.spans = [span for start, end in found if (span := without_punctuation(text, start, end))]
        written = [text[start:end] for start, end in self.spans]
        self.keys = [comparable(word) for word in written]
        self.capital = [any(map(str.isupper, word)) for word in written]
        if self.keys and self.keys[0] in FUNCTION_WORDS:
            self.capital[0] = False  # It begins the sentence.
        digit = [any(map(str.isdigit, word)) for word in written]
        self.names = [capital or number for capital, number in zip(self.capital, digit, strict=True)]

    def contain(self, keys: Sequence[str]) -> bool:
        """Return whether words occur one after the other."""
        return any(self.keys[i : i + len(keys)] == list(keys) for i in range(len(self.keys)))

    def follows_auxiliary(self, word: int) -> bool:
        """Return whether the word before is an auxiliary."""
        return word > 0 and self.keys[word - 1] in AUXILIARIES

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Return the characters of the words ``first`` to ``last``, without a possessive ending."""
        start, end = self.spans[first][0], self.spans[last][1]
        end -= len(ending[0]) if (ending := POSSESSIVE.search(self.text[start:end])) else 0
        while self.text[start:end].endswith(")") and self.text[start:end].count(")") > self.text[start:end].count("("):
            end -= 1
        return start, end


def comparable(word: str) -> str:
    """Return a word without case, possessive ending and brackets, whatever its apostrophe and way to write accents."""
    return unicodedata.normalize("NFC", POSSESSIVE.sub("", word).strip("()").replace("’", "'")).casefold()


def without_punctuation(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the part of a span without punctuation around it; None if nothing is left."""
    word = text[start:end]
    start += len(word) - len(word.lstrip(AROUND_WORDS + "([{¿¡"))
    end -= len(word) - len(word.rstrip(AROUND_WORDS))
    return (start, end) if start < end else None


def guess_subject(prompt: str, equivalents: Sequence[str]) -> Guess | None:
    """Return the probable subject of a prompt, given prompts that are equivalent to it; None if there is no hint."""
    quoted = [match.span(match.lastindex or 0) for match in QUOTED.finditer(prompt)]
    if len(quoted) == 1:
        return Guess(*quoted[0], "name", certain=True)
    words, others = Words(prompt), [Words(text) for text in equivalents]
    names = names_in(words, others)
    if names:
        # A number alone is a name only if nothing else is: "Who led Norway in 1994?"
        first, last = max(names, key=lambda name: (any(words.capital[name[0] : name[1] + 1]), name[1] - name[0], name))
        while len(others) > 1 and may_go_on(words, others, first, last):
            last += 1  # Several equivalents agree on what belongs to the name.
        agreed = all(other.contain(words.keys[first : last + 1]) for other in others)
        certain = len(names) == 1 and agreed and not may_go_on(words, others, first, last)
        return Guess(*words.characters(first, last), "name", certain)
    shared = longest_shared(words, others)
    return Guess(*words.characters(*shared), "overlap", certain=False) if shared else None


def names_in(words: Words, others: Sequence[Words]) -> list[tuple[int, int]]:
    """Return the first and last word of each name of a prompt."""
    names = []
    first = 0
    while first < len(words.names):
        if not words.names[first]:
            first += 1
            continue
        last = first
        while (following := next_part(words, others, last)) is not None:
            last = following
        names.append((first, last))
        first = last + 1
    # A sentence begins with a capital letter: its first word alone is a name only if the equivalents say it, too.
    if names and names[0] == (0, 0) and (len(names) > 1 or not any(other.contain(words.keys[:1]) for other in others)):
        del names[0]
    return names


def next_part(words: Words, others: Sequence[Words], last: int) -> int | None:
    """Return the next word with a capital letter or digit that belongs to the same name; None if the name ends."""
    after = last + 1
    while after < len(words.keys) and not words.names[after] and words.keys[after] in PARTICLES | PREPOSITIONS:
        after += 1
    if after == len(words.keys) or not words.names[after] or after - last > JOINING + 1:
        return None
    between = words.keys[last + 1 : after]
    repeated = any(other.contain(words.keys[last : after + 1]) for other in others)
    return after if repeated or PARTICLES.issuperset(between) else None


def may_go_on(words: Words, others: Sequence[Words], first: int, last: int) -> bool:
    """Return whether the word behind a name may belong to it: all equivalents repeat it there.

    A function word does not, nor a verb, which stands there after an auxiliary ("When did Ada die").
    """
    behind = words.keys[last + 1 : last + 2]
    if not behind or behind[0] in FUNCTION_WORDS or (len(others) == 1 and words.follows_auxiliary(first)):
        return False
    return all(other.contain(words.keys[first : last + 2]) for other in others)


def longest_shared(words: Words, others: Sequence[Words]) -> tuple[int, int] | None:
    """Return the first and last word of the longest run (in characters) that all equivalents contain.

    It neither begins nor ends with a function word. Of equally long runs it is the last: a question names its subject
    late.
    """
    content = [place for place, key in enumerate(words.keys) if key not in FUNCTION_WORDS]
    runs = [(first, last) for first in content for last in content if first <= last]
    for first, last in sorted(
        runs, key=lambda run: (words.spans[run[1]][1] - words.spans[run[0]][0], run), reverse=True
    ):
        if all(other.contain(words.keys[first : last + 1]) for other in others):
            return first, last
    return None
