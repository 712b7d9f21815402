"""What tiny models learn from the lines of a text in pretraining, by architecture.

A line is a list of token ids, with the special tokens that the tokenizer puts around it; a unit is one line, or two
neighbouring ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.scratch import ScratchSettings
from malmen.models.scratch import SENTINELS

Line = list[int]
Span = tuple[int, int]


class Objective(Protocol):
    """A loss over a minibatch of units."""

    @property
    def lines(self) -> int:
        """How many neighbouring lines make a unit."""

    @property
    def rng(self) -> random.Random | torch.Generator | None:
        """What draws the hidden parts; None if nothing is hidden."""

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the minibatch's loss, a scalar."""


def objective(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ScratchSettings, seed: int
) -> Objective:
    """Return an architecture's objective; what it hides is drawn from ``seed``."""
    if shape.architecture == "bert":
        rng = torch.Generator().manual_seed(seed)
        return MaskedAndNeighbours(module, tokenizer, shape.neighbour_coefficient, rng)
    if shape.architecture == "t5":
        vocabulary = tokenizer.get_vocab()
        sentinels = [vocabulary[token] for token in SENTINELS]
        return SpanCorruption(module, tokenizer.pad_token_id, sentinels, random.Random(seed))
    if shape.architecture == "bart":
        return TextInfilling(module, tokenizer.pad_token_id, tokenizer.mask_token_id, random.Random(seed))
    return Causal(module, tokenizer.pad_token_id)


@dataclass(frozen=True)
class Causal:
    """GPT-2 and GPT-J learn to continue single lines."""

    module: PreTrainedModel
    padding: int
    lines: ClassVar[int] = 1
    rng: ClassVar[None] = None

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the next token."""
        ids, mask = pad([line for unit in units for line in unit], self.padding)
        return causal_loss(self.module, ids, mask)


@dataclass(frozen=True)
class MaskedAndNeighbours:
    """BERT sees pairs of neighbouring lines, and those left over alone.

    It learns to fill in what is hidden of them, and that their [CLS] states belong together (:func:`neighbour_loss`).
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    coefficient: float
    rng: torch.Generator
    lines: ClassVar[int] = 2

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the loss of the hidden tokens, and that of the neighbours times its coefficient."""
        # First lines, then lone ones, then second lines: the pairs are the first and the last so many.
        pairs = [unit for unit in units if len(unit) == 2]
        lone = [unit[0] for unit in units if len(unit) == 1]
        lines = [pair[0] for pair in pairs] + lone + [pair[1] for pair in pairs]
        ids, mask = pad(lines, self.tokenizer.pad_token_id)
        shown, hidden = hide_tokens(ids, mask, self.tokenizer, self.rng)
        states = self.module.base_model(input_ids=shown, attention_mask=mask).last_hidden_state
        logits: Tensor = self.module.get_submodule("cls")(states[hidden])
        loss = F.cross_entropy(logits, ids[hidden])
        if len(pairs) > 1:
            first, second = states[: len(pairs), 0], states[-len(pairs) :, 0]
            loss = loss + self.coefficient * neighbour_loss(first, second)
        return loss


@dataclass(frozen=True)
class SpanCorruption:
    """T5 hides parts of a line, which the decoder is to say.

    Of half of the lines 15 % are hidden, in spans of 3 tokens on average (span corruption). The others are hidden from
    a random point to their end (prefix language modelling): a tiny T5 that never continued a text is slow to answer.
    """

    module: PreTrainedModel
    padding: int
    sentinels: Sequence[int]
    rng: random.Random
    share: ClassVar[float] = 0.15
    lines: ClassVar[int] = 1

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the decoder's tokens."""
        lines = [line for unit in units for line in unit]
        corrupted = [self.corrupt(line) if self.rng.random() < 0.5 else self.cut(line) for line in lines]
        seen, said = zip(*corrupted, strict=True)
        return sequence_to_sequence_loss(self.module, seen, said, self.padding)

    def cut(self, line: Line) -> tuple[Line, Line]:
        """Return a line up to a random point, and the rest; both end as the line does."""
        *text, end = line
        point = self.rng.randrange(len(text))
        return [*text[:point], end], [*text[point:], end]

    def corrupt(self, line: Line) -> tuple[Line, Line]:
        """Return a line with a sentinel in place of each hidden span, and the spans; both end as the line does."""
        *text, end = line
        spans = draw_spans(len(text), self.share, self.rng)[: len(self.sentinels)]
        said = [[sentinel, *text[slice(*span)]] for sentinel, span in zip(self.sentinels, spans, strict=False)]
        seen = replace_spans(text, spans, self.sentinels)
        return [*seen, end], [token for part in said for token in part] + [end]


@dataclass(frozen=True)
class TextInfilling:
    """BART hides 30 % of a line, one mask for each span of 3 tokens on average; the decoder says the whole line."""

    module: PreTrainedModel
    padding: int
    mask: int
    rng: random.Random
    share: ClassVar[float] = 0.3
    lines: ClassVar[int] = 1

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the decoder's tokens."""
        lines = [line for unit in units for line in unit]
        return sequence_to_sequence_loss(self.module, [self.corrupt(line) for line in lines], lines, self.padding)

    def corrupt(self, line: Line) -> Line:
        """Return what the encoder sees of a line: all between its first and last token may be hidden."""
        start, *text, end = line
        spans = draw_spans(len(text), self.share, self.rng)
        return [start, *replace_spans(text, spans, [self.mask] * len(spans)), end]


def pad(lines: Sequence[Line], filler: int) -> tuple[Tensor, Tensor]:
    """Pad token ids on the right: ids and attention mask, both (B, T)."""
    length = max(map(len, lines))
    ids = torch.tensor([[*line, *[filler] * (length - len(line))] for line in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (length - len(line)) for line in lines])
    return ids, mask


def sequence_to_sequence_loss(
    module: PreTrainedModel, seen: Sequence[Line], said: Sequence[Line], padding: int
) -> Tensor:
    """Return the mean cross-entropy of what the decoder is to say (B lines) of what the encoder sees (B lines)."""
    ids, mask = pad(seen, padding)
    labels, _ = pad(said, -100)
    loss: Tensor = module(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def draw_spans(length: int, share: float, rng: random.Random, mean: float = 3.0) -> list[Span]:
    """Draw spans (start, end) that hold a share of ``length`` tokens, at least one of them, and do not touch."""
    hidden = max(1, round(share * length))
    number = min(max(1, round(hidden / mean)), length - hidden + 1)
    sizes = random_parts(hidden, number, rng)
    # Between two spans at least one token is seen; before the first and after the last there may be none.
    gaps = random_parts(length - hidden + 2, number + 1, rng)
    spans, position = [], -1
    for gap, size in zip(gaps, sizes, strict=False):
        position += gap
        spans.append((position, position + size))
        position += size
    return spans


def random_parts(total: int, number: int, rng: random.Random) -> list[int]:
    """Return ``number`` random whole numbers of at least 1 that add up to ``total``."""
    cuts = [0, *sorted(rng.sample(range(1, total), number - 1)), total]
    return [end - start for start, end in pairwise(cuts)]


def replace_spans(text: Line, spans: Sequence[Span], tokens: Sequence[int]) -> Line:
    """Return a text with one token in place of each span."""
    result, position = [], 0
    for (start, end), token in zip(spans, tokens, strict=False):
        result += [*text[position:start], token]
        position = end
    return result + text[position:]


def causal_loss(module: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy of every next token that is not padding."""
    logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    kept = mask[:, 1:].bool()
    return F.cross_entropy(logits[kept], ids[:, 1:][kept])


def hide_tokens(
    ids: Tensor, mask: Tensor, tokenizer: PreTrainedTokenizerBase, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the tokens as BERT does: 80 % by the mask, 10 % by a random token, 10 % left as they are.

    Returns:
        The ids to show and whether each is one to predict, both (B, T).
    """
    ordinary = mask.bool() & (ids != tokenizer.cls_token_id) & (ids != tokenizer.sep_token_id)
    hidden = ordinary & (torch.rand(ids.shape, generator=rng) < 0.15)
    if not hidden.any():
        hidden = ordinary
    how = torch.rand(ids.shape, generator=rng)
    random_ids = torch.randint(len(tokenizer), ids.shape, generator=rng)
    shown = torch.where(hidden & (how < 0.8), tokenizer.mask_token_id, ids)
    return torch.where(hidden & (how >= 0.8) & (how < 0.9), random_ids, shown), hidden


def neighbour_loss(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the cross-entropy of telling each line's neighbour from those of the batch's other lines.

    The part of BERT's next-sentence prediction: it fills [CLS], which masked language modelling leaves empty, with what
    a line is about. A pair's score is the cosine of its states over a temperature, as in SimCSE (Gao et al., 2021).

    Args:
        first: [CLS] states, (P, H).
        second: those of the neighbours, in the same order, (P, H).
        temperature: divides the cosines.
    """
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    matching = torch.arange(len(scores))
    return (F.cross_entropy(scores, matching) + F.cross_entropy(scores.T, matching)) / 2
