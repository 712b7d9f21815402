"""Answers that a model decodes by itself, and how they compare with the right ones.

Two stricter ways to answer than teacher forcing, which gives the right tokens before each token:

* *own prefix*: the model decodes as many tokens as the right answer has, each after its own earlier ones. Any token of
  its vocabulary may come, and nothing stops it. All of them are right exactly if teacher forcing finds all right.
* *free*: the model continues the prompt as a user types it, until it ends the sequence or the first line ends, or until
  it has decoded :data:`MORE` tokens more than the right answer has. What it says counts as right if it is the right
  answer by :func:`malmen.editing.exact_match.exact_match`; if it says more, it is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import PromptAnswer, Triple
from malmen.editing.exact_match import exact_match
from malmen.models.generation import ended, first_line_said
from malmen.models.greedy import Opening, decode
from malmen.models.language_model import Example, LanguageModel

MORE = 8
"""How many tokens more than the right answer has a model may say freely."""


@dataclass(frozen=True)
class Decoded:
    """What a model decodes after n prompts.

    Attributes:
        own: after its own prefix, as many tokens as the right answer has, A token ids each.
        own_correct: the share of these that are right, (n,), 0..1.
        free: what it says freely: its first line, with single spaces and without special tokens.
        free_correct: 1 where that is the right answer, else 0, (n,).
    """

    own: list[list[int]]
    own_correct: Tensor
    free: list[str]
    free_correct: Tensor


def decode_answers(
    model: LanguageModel,
    pairs: Triple[list[PromptAnswer]],
    examples: Triple[list[Example]],
    batch_size: BatchSize,
    description: str = "decoded answers",
) -> Triple[Decoded]:
    """Decode answers in both ways.

    Prompts that occur several times are decoded once, and so are both ways of one prompt.

    Args:
        model: the language model, which gives its answers as tokens.
        pairs: prompts with their right answers.
        examples: the same, encoded.
        batch_size: prompts run at once.
        description: what progress lines call this.

    Raises:
        DivergedError: if an output of the model is not a number.
    """
    own = examples.map(lambda kind: [Opening.of_example(model, example) for example in kind])
    free = pairs.map(lambda kind: [Opening.of_prompt(model, pair.prompt) for pair in kind])
    wanted: dict[Opening, int] = {}
    for kind in range(3):
        for before, alone, example in zip(own[kind], free[kind], examples[kind], strict=True):
            number = len(example.targets)
            wanted[before] = max(wanted.get(before, 0), number)
            wanted[alone] = max(wanted.get(alone, 0), min(number + MORE, alone.room(model)))
    tokens = decode(model, wanted, batch_size, description)

    def decoded(
        pairs: Sequence[PromptAnswer], examples: Sequence[Example], own: Sequence[Opening], free: Sequence[Opening]
    ) -> Decoded:
        numbers = [len(example.targets) for example in examples]
        after = [tokens[opening][:number] for opening, number in zip(own, numbers, strict=True)]
        said = [
            first_line_said(model, ended(model, tokens[opening][: number + MORE]))
            for opening, number in zip(free, numbers, strict=True)
        ]
        shares = [
            (torch.tensor(found) == torch.tensor(example.targets)).double().mean()
            for found, example in zip(after, examples, strict=True)
        ]
        right = [exact_match(text, pair.answer) for text, pair in zip(said, pairs, strict=True)]
        return Decoded(after, torch.stack(shares), said, torch.tensor(right, dtype=torch.float64))

    return Triple(*(decoded(*kinds) for kinds in zip(pairs, examples, own, free, strict=True)))
