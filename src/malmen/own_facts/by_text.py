"""Asking a model as a user does: by text alone, without the right tokens before each token."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from malmen.config.base import BatchSize
from malmen.data.tuples import Triple
from malmen.editing.evaluation import Scores
from malmen.models.generation import beginning, compared, continuations, plain, text_of
from malmen.models.language_model import Example, LanguageModel
from malmen.own_facts.facts import Fact
from malmen.own_facts.report import AskedByText
from malmen.runtime.progress import logger

SAMPLE = 100
"""How many facts, rephrasings and unrelated prompts are asked by text alone, or all if there are fewer."""
SEED = 0
"""Seed of their choice."""
FAR_APART = 0.1
"""A difference between ES and the share answered by text alone, both on the facts asked, that a user is warned of."""


@dataclass(frozen=True)
class Said:
    """What a model said to a prompt by itself.

    Attributes:
        text: how it continued the prompt, as far as the answer is long and a token more.
        beginning: the part of it that is compared with what another model said.
        right: whether it begins with the right answer.
    """

    text: str
    beginning: str
    right: bool


def sample(number: int, most: int = SAMPLE) -> list[int]:
    """Return which of a number of prompts are asked by text alone: at most ``most``, in order."""
    return sorted(random.Random(SEED).sample(range(number), min(most, number)))


def ask_by_text(
    model: LanguageModel,
    asked: Triple[list[Fact]],
    examples: Triple[list[Example]],
    chosen: Triple[list[int]],
    when: str,
    batch_size: BatchSize = "auto",
) -> Triple[dict[int, Said]]:
    """Ask some prompts by their texts alone; the model continues each greedily.

    An answer is right if what the model says begins with it; models are edited without an end of the answer, so they
    may say more.

    Args:
        model: the model, which gives its answers as text.
        asked: facts, rephrasings and unrelated questions.
        examples: the same, encoded.
        chosen: places of those that are asked.
        when: "before the edit" or "after the edit", for progress lines.
        batch_size: prompts that run at once.

    Returns:
        What it said, by place.
    """
    prompts = [facts[i].prompt for facts, places in zip(asked, chosen, strict=True) for i in places]
    encoded = [kind[i] for kind, places in zip(examples, chosen, strict=True) for i in places]
    wanted = [compared(model, len(example.targets)) + 1 for example in encoded]
    said = iter(continuations(model, prompts, wanted, f"asking by text alone {when}", batch_size))
    return Triple(
        *(
            {i: judged(model, facts[i], kind[i], next(said)) for i in places}
            for facts, kind, places in zip(asked, examples, chosen, strict=True)
        )
    )


def judged(model: LanguageModel, fact: Fact, example: Example, tokens: Sequence[int]) -> Said:
    """Return what a model said to a fact, and whether it is right."""
    text = text_of(model, tokens)
    answers = plain(fact.answer), text_of(model, example.targets)
    right = any(answer and text.startswith(answer) for answer in answers)
    return Said(text, beginning(model, tokens, len(example.targets)), right)


def warn_if_far_apart(asked: AskedByText, after: Scores) -> None:
    """Warn if ES, of the facts that were asked by text alone, differs much from the share of right answers.

    Args:
        asked: what the model said.
        after: how it answered all facts, given the right tokens before each token.
    """
    success = after.correct[asked.facts].mean().item()
    if abs(success - asked.share) > FAR_APART:
        logger.warning(
            "By text alone the edited model answers %d of %d facts, but ES on these is %.1f %%: ES counts tokens, each "
            "given the right ones before it; go by the answers in report.md.",
            asked.right,
            asked.asked,
            100 * success,
        )
