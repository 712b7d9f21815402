"""Asking an edited model as a user does: by text alone, without the right tokens before each token."""

import random
from collections.abc import Sequence
from typing import Any, cast

import torch

from malmen.editing.evaluation import Scores
from malmen.errors import first_line
from malmen.models.encoding import encode_text
from malmen.models.language_model import Example, LanguageModel
from malmen.own_facts.facts import Fact
from malmen.own_facts.report import AskedByText, TextAnswer
from malmen.runtime.progress import logger, progress

SAMPLE = 20
"""How many facts are asked, or all if there are fewer."""
SEED = 0
"""Seed of their choice."""
FAR_APART = 0.1
"""A difference between ES and the share answered by text alone, both on the facts asked, that a user is warned of."""


def ask_by_text(model: LanguageModel, facts: Sequence[Fact], examples: Sequence[Example]) -> AskedByText | None:
    """Ask a sample of facts by their prompts alone; the model, edited, continues each greedily.

    The model's own generation settings hold, except that nothing is drawn at random. An answer is right if what the
    model says begins with it; models are edited without an end of the answer, so they may say more.

    Args:
        model: the edited model, which gives its answers as text.
        facts: all facts.
        examples: the encoded facts.

    Returns:
        What it said; None if its generation settings do not work.
    """
    chosen = sorted(random.Random(SEED).sample(range(len(facts)), min(SAMPLE, len(facts))))
    answers = []
    try:
        for i in progress(chosen, len(chosen), "asking by text alone", brief=True):
            said = plain(continuation(model, facts[i].prompt, examples[i]))
            right = plain(facts[i].answer), plain(decode(model, examples[i].targets))
            begins = any(answer and said.startswith(answer) for answer in right)
            answers.append(TextAnswer(facts[i].prompt, facts[i].answer, said, begins))
    except Exception as error:  # Settings of generation make transformers raise errors of any kind.
        logger.warning(
            "The edited model was not asked by text alone, because it does not generate (%s).", first_line(error)
        )
        return None
    return AskedByText(SEED, chosen, len(answers), sum(answer.right for answer in answers), answers)


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


@torch.no_grad()
def continuation(model: LanguageModel, prompt: str, example: Example) -> str:
    """Return what a model says to a prompt, with a token more than the right answer has."""
    tokens = encode_text(model.tokenizer, model.form.text(prompt), closed=model.two_stacks).tokens
    begun = example.answer_positions[0] if model.two_stacks else len(tokens) - 1  # special tokens before the answer
    limit = model.decoder_limit if model.two_stacks else model.limit
    wanted = len(example.targets) + 1 + (begun if model.two_stacks else 0)
    # The last token that is generated is not read again, so it may lie beyond the limit.
    wanted = min(wanted, limit.tokens - begun) if limit else wanted
    ids, module = model.tensor([tokens]), cast(Any, model.module)
    output = module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_return_sequences=1,
        return_dict_in_generate=False,
        max_new_tokens=wanted,
    )
    return decode(model, output[0, 0 if model.two_stacks else len(tokens) :].tolist())


def decode(model: LanguageModel, tokens: Sequence[int]) -> str:
    """Return tokens as text, without special tokens."""
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True))


def plain(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())
