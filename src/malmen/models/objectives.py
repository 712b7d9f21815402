"""Pretraining objectives of the tiny models, by architecture.

A line is a list of token ids, with the tokenizer's special tokens; a unit is one line or two neighbouring lines.
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
        """The number of neighbouring lines in a unit."""

    @property
    def rng(self) -> random.Random | torch.Generator | None:
        """The random generator that chooses the hidden tokens; None if none are hidden."""

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the minibatch's loss, a scalar."""


def objective(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shape: ScratchSettings, seed: int
) -> Objective:
    """Return an architecture's objective; ``seed`` determines which tokens it hides."""
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
    """GPT-2 and GPT-J predict the next token of single lines."""

    module: PreTrainedModel
    padding: int
    lines: ClassVar[int] = 1
    rng: ClassVar[None] = None

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the next token, a scalar."""
        ids, mask = pad([line for unit in units for line in unit], self.padding)
        return causal_loss(self.module, ids, mask)


@dataclass(frozen=True)
class MaskedAndNeighbours:
    """BERT sees pairs of neighbouring lines, and the remaining lines alone.

    It learns to predict hidden tokens, and to recognise neighbours by their [CLS] states (:func:`neighbour_loss`).
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    coefficient: float
    rng: torch.Generator
    lines: ClassVar[int] = 2

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the loss of hidden tokens plus ``coefficient`` times that of neighbours, a scalar."""
        # Order: first lines of pairs, lone lines, second lines of pairs.
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
    """T5's decoder predicts hidden parts of a line.

    In half of the lines, spans of 3 tokens on average hide 15 % of the tokens (span corruption). The other lines are
    hidden from a random point to the end (prefix language modelling), without which a tiny T5 learns to answer slowly.
    """

    module: PreTrainedModel
    padding: int
    sentinels: Sequence[int]
    rng: random.Random
    share: ClassVar[float] = 0.15
    lines: ClassVar[int] = 1

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the decoder's tokens, a scalar."""
        lines = [line for unit in units for line in unit]
        corrupted = [self.corrupt(line) if self.rng.random() < 0.5 else self.cut(line) for line in lines]
        seen, said = zip(*corrupted, strict=True)
        return sequence_to_sequence_loss(self.module, seen, said, self.padding)

    def cut(self, line: Line) -> tuple[Line, Line]:
        """Split a line at a random point; both parts end with the line's last token."""
        *text, end = line
        point = self.rng.randrange(len(text))
        return [*text[:point], end], [*text[point:], end]

    def corrupt(self, line: Line) -> tuple[Line, Line]:
        """Return a line with a sentinel for each hidden span, and the spans; both end with the line's last token."""
        *text, end = line
        spans = draw_spans(len(text), self.share, self.rng)[: len(self.sentinels)]
        said = [[sentinel, *text[slice(*span)]] for sentinel, span in zip(self.sentinels, spans, strict=False)]
        seen = replace_spans(text, spans, self.sentinels)
        return [*seen, end], [token for part in said for token in part] + [end]


@dataclass(frozen=True)
class TextInfilling:
    """BART predicts a whole line of which 30 % is hidden, in spans of 3 tokens on average, one mask for each."""

    module: PreTrainedModel
    padding: int
    mask: int
    rng: random.Random
    share: ClassVar[float] = 0.3
    lines: ClassVar[int] = 1

    def __call__(self, units: Sequence[Sequence[Line]]) -> Tensor:
        """Return the mean cross-entropy of the decoder's tokens, a scalar."""
        lines = [line for unit in units for line in unit]
        return sequence_to_sequence_loss(self.module, [self.corrupt(line) for line in lines], lines, self.padding)

    def corrupt(self, line: Line) -> Line:
        """Return the encoder's input: the line with masks for hidden spans; its first and last token stay."""
        start, *text, end = line
        spans = draw_spans(len(text), self.share, self.rng)
        return [start, *replace_spans(text, spans, [self.mask] * len(spans)), end]


def pad(lines: Sequence[Line], filler: int) -> tuple[Tensor, Tensor]:
    """Pad token ids of B lines on the right; return ids and attention mask, both (B, T)."""
    length = max(map(len, lines))
    ids = torch.tensor([[*line, *[filler] * (length - len(line))] for line in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (length - len(line)) for line in lines])
    return ids, mask


def sequence_to_sequence_loss(
    module: PreTrainedModel, seen: Sequence[Line], said: Sequence[Line], padding: int
) -> Tensor:
    """Return the mean cross-entropy, a scalar, of the decoder's lines ``said`` (B) given the encoder's ``seen`` (B)."""
    ids, mask = pad(seen, padding)
    labels, _ = pad(said, -100)
    loss: Tensor = module(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def draw_spans(length: int, share: float, rng: random.Random, mean: float = 3.0) -> list[Span]:
    """Draw spans (start, end) that cover a ``share`` of ``length`` tokens, at least one, and do not touch."""
    hidden = max(1, round(share * length))
    number = min(max(1, round(hidden / mean)), length - hidden + 1)
    sizes = random_parts(hidden, number, rng)
    # At least one token stays visible between two spans, but not before the first or after the last.
    gaps = random_parts(length - hidden + 2, number + 1, rng)
    spans, position = [], -1
    for gap, size in zip(gaps, sizes, strict=False):
        position += gap
        spans.append((position, position + size))
        position += size
    return spans


def random_parts(total: int, number: int, rng: random.Random) -> list[int]:
    """Return ``number`` random integers >= 1 whose sum is ``total``."""
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
    """Return the mean cross-entropy of the next tokens that are not padding, a scalar.

    Args:
        module: the model.
        ids: token ids, (B, T).
        mask: 1 at tokens, 0 at padding, (B, T).
    """
    logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    kept = mask[:, 1:].bool()
    return F.cross_entropy(logits[kept], ids[:, 1:][kept])


def hide_tokens(
    ids: Tensor, mask: Tensor, tokenizer: PreTrainedTokenizerBase, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the tokens as BERT does: 80 % become the mask, 10 % a random token, 10 % stay.

    Args:
        ids: token ids, (B, T).
        mask: 1 at tokens, 0 at padding, (B, T).
        tokenizer: the model's tokenizer.
        rng: the random generator.

    Returns:
        The model's input ids, and whether to predict each, both (B, T).
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
    """Return the cross-entropy, a scalar, of recognising each line's neighbour among the batch's lines.

    It replaces BERT's next-sentence prediction, and makes [CLS] represent the topic of a line. A pair's score is the
    cosine of its states, divided by a temperature, as in SimCSE (Gao et al., 2021).

    Args:
        first: [CLS] states, (P, H).
        second: those of the neighbours, in the same order, (P, H).
        temperature: divides the cosines.
    """
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    matching = torch.arange(len(scores))
    return (F.cross_entropy(scores, matching) + F.cross_entropy(scores.T, matching)) / 2
