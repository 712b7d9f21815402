"""Texts, prompts and answers as tokens, the same for every use, so that what is edited is what a user sees.

A prompt and its answer are the tokens of the joined text, ``prompt + separator + answer``: a tokenizer may encode the
end of a prompt or the beginning of an answer otherwise when it sees them alone. The answer begins after the tokens of
the prompt alone. Where the joined text does not begin with these, it begins at the first token that reaches beyond the
prompt, so that a token across the border belongs to the answer.

Special tokens that a tokenizer adds before a text stay; a model has been trained to begin with them. Those that it adds
after a text (such as BERT's [SEP]) would close it between a prompt and its answer, and are left out.
"""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from malmen.errors import UserError
from malmen.models.length import Limit


class UnreadableError(UserError):
    """A prompt and its answer have no tokens, or more than the model reads."""


@dataclass(frozen=True)
class EncodedText:
    """A text as T tokens.

    Attributes:
        tokens: token ids, length T.
        begin: position of the first token of the text itself; special tokens precede it.
        end: position after the last one; special tokens follow it if the text is closed.
        spans: for each token the characters of the text that it stands for, start and end (exclusive); None if they
            were not asked for, or the tokenizer cannot tell.
    """

    tokens: tuple[int, ...]
    begin: int
    end: int
    spans: tuple[tuple[int, int], ...] | None

    @property
    def own(self) -> tuple[int, ...]:
        """Return the tokens of the text itself."""
        return self.tokens[self.begin : self.end]

    @property
    def before(self) -> tuple[int, ...]:
        """Return the special tokens before the text."""
        return self.tokens[: self.begin]


@dataclass(frozen=True)
class EncodedPair:
    """A prompt joined with its answer.

    Attributes:
        text: the joined text.
        n_prompt: number of tokens of the prompt in it, with the special tokens before it.
        n_own: number of the prompt's tokens without these, when it is encoded alone.
        is_apart: whether the joined text begins with the tokens of the prompt alone, which a user's prompt has.
    """

    text: EncodedText
    n_prompt: int
    n_own: int
    is_apart: bool

    @property
    def answer(self) -> tuple[int, ...]:
        """Return the tokens of the answer."""
        return self.text.tokens[self.n_prompt :]


def encode_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    closed: bool = False,
    limit: Limit | None = None,
    as_target: bool = False,
    with_spans: bool = False,
) -> EncodedText:
    """Encode a text with the special tokens that the tokenizer puts before it.

    Special tokens with which the text itself begins or ends, as a chat template writes them, are not added again.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        closed: whether to keep special tokens after the text, too.
        limit: where a text that is too long is cut off.
        as_target: whether it is what a decoder outputs, for which a tokenizer may have another vocabulary.
        with_spans: whether to find the characters of each token, which takes time.
    """
    wanted: dict[str, Any] = {"text_target" if as_target else "text": text, "return_special_tokens_mask": True}
    if limit is not None:
        wanted |= {"truncation": True, "max_length": limit.tokens}
    with_spans = with_spans and tokenizer.is_fast
    if with_spans:
        wanted["return_offsets_mapping"] = True
    encoded = tokenizer(**wanted)
    ids, added = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
    begin = added.index(0) if 0 in added else len(ids)
    end = len(ids) - added[::-1].index(0) if 0 in added else len(ids)
    before, own, after = ids[:begin], ids[begin:end], ids[end:]
    first = begin if own[: len(before)] == before else 0
    last = len(ids) if closed and after != own[len(own) - len(after) :] else end
    spans = tuple(encoded["offset_mapping"][first:last]) if with_spans else None
    return EncodedText(tuple(ids[first:last]), begin - first, end - first, spans)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, separator: str = " ", *, with_spans: bool = False
) -> EncodedPair:
    """Encode a prompt and its answer as one text (see the module's description)."""
    text = f"{prompt}{separator}{answer}"
    alone, joined = encode_text(tokenizer, prompt), encode_text(tokenizer, text, with_spans=with_spans)
    if joined.tokens[: len(alone.tokens)] == alone.tokens:
        return EncodedPair(joined, len(alone.tokens), len(alone.own), is_apart=True)
    joined = encode_text(tokenizer, text, with_spans=True)
    return EncodedPair(joined, border(joined, alone, len(prompt)), len(alone.own), is_apart=False)


def border(joined: EncodedText, alone: EncodedText, n_characters: int) -> int:
    """Return the position of the first token that reaches beyond the ``n_characters`` characters of a prompt.

    Without spans it is the first token that differs from those of the prompt alone.
    """
    if joined.spans:
        beyond = (i for i, (_, end) in enumerate(joined.spans) if end > n_characters)
    else:
        beyond = (i for i, pair in enumerate(zip(joined.tokens, alone.tokens, strict=False)) if pair[0] != pair[1])
    return next(beyond, min(len(joined.tokens), len(alone.tokens)))
