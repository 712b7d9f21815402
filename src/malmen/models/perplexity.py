"""Perplexity: how well a model predicts a text."""

import math
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.encoding import encode_text
from malmen.models.language_model import Batch, Example, LanguageModel, shared
from malmen.models.tasks import FactChecking
from malmen.runtime.ranks import ranks

WINDOW = 256
"""Tokens of a window, or fewer if the model reads fewer."""
AT_ONCE = 512
"""Tokens that run through the model at once, since each has logits over the whole vocabulary."""
LARGEST = 1e30
"""Where a perplexity is cut off, so that it stays a number that JSON can hold."""


def text_perplexity(model: LanguageModel, text: str, when: str) -> float | None:
    """Return the perplexity of a text, as :func:`perplexity` does, of its parts by :func:`text_examples`.

    Args:
        model: the language model.
        text: the text.
        when: "before the edit" or "after the edit", for progress lines.

    Returns:
        The perplexity; None for a fact checker, and if the model cannot read a part of the text.
    """
    examples = text_examples(model, text)
    return perplexity(model, examples, f"perplexity {when}") if examples else None


def perplexity(model: LanguageModel, examples: Sequence[Example], description: str = "perplexity") -> float:
    """Return exp of the mean negative log-likelihood of all answer tokens of n examples, at most :data:`LARGEST`.

    Args:
        model: the language model.
        examples: encoded texts, n >= 1; every predicted token counts once.
        description: what progress lines call this.
    """

    @torch.no_grad()
    def work(batch: Batch) -> Tensor:
        return model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets).double().cpu()

    size = max(1, AT_ONCE // max(len(example.tokens) for example in examples))
    with ranks().together():
        parts = list(model.in_batches("perplexity", shared(examples), size, work, description))
    own = torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)  # (tokens of this rank's examples,)
    mean = ranks().all_rows(own).mean().item()
    return math.exp(mean) if mean < math.log(LARGEST) else LARGEST


def text_examples(model: LanguageModel, text: str) -> list[Example]:
    """Encode a text for :func:`perplexity`; a fact checker has no such examples.

    A decoder-only model reads the text in windows that follow each other; the first token of each is not predicted. An
    encoder-decoder reads the first half of each sentence and predicts the second.
    """
    if isinstance(model.task, FactChecking):
        return []
    return list(halves(model, text) if model.two_stacks else windows(model, text))


def windows(model: LanguageModel, text: str) -> Iterator[Example]:
    """Yield windows of a text, each with the special tokens that the model begins with."""
    before = encode_text(model.tokenizer, "a").before
    # The whole text is longer than the tokenizer's limit, and it would say so.
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    width = min(WINDOW, model.limit.tokens + 1 if model.limit else WINDOW) - len(before)
    rows = min(model.vocabulary.inputs, model.vocabulary.outputs)
    if width < 2 or max(ids, default=0) >= rows:
        return
    for start in range(0, len(ids), width):
        tokens = (*before, *ids[start : start + width])
        first = max(len(before), 1)  # The first token of a text without a special one before it is not predicted.
        if len(tokens) > first:
            yield Example(tokens[:-1], tuple(range(first - 1, len(tokens) - 1)), tokens[first:])


def halves(model: LanguageModel, text: str) -> Iterator[Example]:
    """Yield sentences of a text, of which an encoder reads the first half and a decoder gives the second."""
    for sentence in sentences(text):
        words = sentence.split()
        middle = len(words) // 2
        try:
            yield model.encode_one(PromptAnswer(" ".join(words[:middle]), " ".join(words[middle:])))
        except (UserError, ValueError):  # The model cannot read this one: it is too long, or has unknown tokens.
            continue


def sentences(text: str) -> Sequence[str]:
    """Return the sentences of a text that have two words at least."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if len(sentence.split()) > 1]
