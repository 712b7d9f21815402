"""Free greedy decoding: a model continues prompts by itself, from the text that a user types."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import torch

from malmen.models.batching import Size, in_parts
from malmen.models.encoding import encode_text
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PLAIN
from malmen.runtime.progress import progress

STEP = 8
"""Numbers of new tokens are rounded up to multiples of it, so that more prompts run together."""
IN_A_FORM = 8
"""Tokens of an answer that are compared at least if the prompt stands in a template, as chat models say more."""


def continuations(
    model: LanguageModel, prompts: Sequence[str], wanted: Sequence[int], what: str, form: bool = True
) -> list[list[int]]:
    """Return what a model says to each of n prompts, token by token the most probable one.

    Prompts of one length run together, without padding, which not every architecture bears. The model's own generation
    settings hold, except that nothing is drawn at random.

    Args:
        model: the language model, which gives its answers as text.
        prompts: the prompts, as a user types them.
        wanted: at most how many tokens of each answer are returned.
        what: the name of the work in progress lines.
        form: whether the prompts are put into the model's form.

    Returns:
        For each prompt the new tokens, up to the end of the answer if the model ends it; it may be none.
    """
    texts = [model.form.text(prompt) if form else prompt for prompt in prompts]
    encoded = [encode_text(model.tokenizer, text, closed=model.two_stacks).tokens for text in texts]
    alike = defaultdict(list)
    for i, (tokens, number) in enumerate(zip(encoded, wanted, strict=True)):
        alike[len(tokens), new_tokens(model, len(tokens), number)].append(i)
    said: list[list[int]] = [[]] * len(prompts)

    def work(chosen: Sequence[int]) -> list[list[int]]:
        return generate(model, [encoded[i] for i in chosen], most)

    groups = progress(sorted(alike.items()), len(prompts), what, weight=lambda group: len(group[1]), brief=True)
    for (length, most), places in groups:
        size = Size.on(model.device, model.at_once("auto"), automatic=False)
        described = f"A single sequence of {length + most} tokens in the language model ({what})"
        answers = (answer for part in in_parts(places, size, work, described, what) for answer in part)
        for i, answer in zip(places, answers, strict=True):
            said[i] = answer[: wanted[i]]
    return said


def new_tokens(model: LanguageModel, length: int, wanted: int) -> int:
    """Return how many tokens to generate after a prompt of ``length`` tokens so that ``wanted`` of an answer come."""
    begun = len(decoder_prefix(model))
    number = begun + -(-wanted // STEP) * STEP
    limit = model.decoder_limit if model.two_stacks else model.limit
    # The last token that is generated is not read again, so it may lie beyond the limit.
    return max(1, min(number, limit.tokens - (0 if model.two_stacks else length - 1)) if limit else number)


def decoder_prefix(model: LanguageModel) -> list[int]:
    """Return the special tokens, such as BART's <s>, with which the decoder of an encoder-decoder begins an answer."""
    return list(encode_text(model.tokenizer, "a", closed=True, as_target=True).before) if model.two_stacks else []


@torch.no_grad()
def generate(model: LanguageModel, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Return the new tokens, at most ``most``, after each of B prompts of one length."""
    ids, module = model.tensor(prompts), cast(Any, model.module)
    output = module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_return_sequences=1,
        return_dict_in_generate=False,
        max_new_tokens=most,
    )
    rows = output[:, 1 if model.two_stacks else ids.shape[1] :].tolist()  # a decoder begins with its start token
    begun = decoder_prefix(model)
    return [ended(model, row[len(begun) :] if row[: len(begun)] == begun else row) for row in rows]


def ended(model: LanguageModel, tokens: list[int]) -> list[int]:
    """Return the tokens of an answer before the one that ends it; padding follows that one."""
    settings = getattr(model.module.generation_config, "eos_token_id", None)
    ends = settings if isinstance(settings, list) else [settings]
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


def text_of(model: LanguageModel, tokens: Sequence[int]) -> str:
    """Return tokens as text with single spaces and without special tokens, which no user sees."""
    return plain(str(model.tokenizer.decode(list(tokens), skip_special_tokens=True)))


def beginning(model: LanguageModel, tokens: Sequence[int], n_answer: int) -> str:
    """Return the part of what a model said that is compared with what it said before: where its answer must lie.

    It is as long as the right answer, ``n_answer`` tokens, or :data:`IN_A_FORM` tokens if the prompt stands in a
    template and that is more; and it ends where the first line ends.
    """
    decoded = str(model.tokenizer.decode(list(tokens[: compared(model, n_answer)]), skip_special_tokens=True))
    return plain(decoded.strip().partition("\n")[0])


def compared(model: LanguageModel, n_answer: int) -> int:
    """Return the number of tokens that :func:`beginning` looks at."""
    return n_answer if model.form == PLAIN else max(n_answer, IN_A_FORM)


def plain(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())
