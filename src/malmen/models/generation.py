"""Free greedy decoding: a model continues prompts by itself, from the text that a user types."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.models.batching import Size, in_parts
from malmen.models.encoding import encode_text
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PLAIN
from malmen.runtime.progress import progress

STEP = 4
"""Numbers of new tokens are rounded up to multiples of it, so that more prompts run together."""
IN_A_FORM = 8
"""Tokens of an answer that are compared at least if the prompt stands in a template, as chat models say more."""


def continuations(
    model: LanguageModel, prompts: Sequence[str], wanted: Sequence[int], what: str, batch_size: BatchSize = "auto"
) -> list[list[int]]:
    """Return what a model says to each of n prompts, token by token the most probable one.

    Prompts run together, padded, if the model bears it (:func:`bears_padding`); else those of one length do. The
    model's own generation settings hold, except that nothing is drawn at random.

    Args:
        model: the language model, which gives its answers as text.
        prompts: the prompts, as a user types them; they are put into the model's form.
        wanted: at most how many tokens of each answer are returned.
        what: the name of the work in progress lines.
        batch_size: prompts that run at once.

    Returns:
        For each prompt the new tokens, up to the end of the answer if the model ends it; it may be none.
    """
    texts = [model.form.text(prompt) for prompt in prompts]
    encoded = [encode_text(model.tokenizer, text, closed=model.two_stacks).tokens for text in texts]
    padded, alike = bears_padding(model), defaultdict(list)
    for i, (tokens, number) in enumerate(zip(encoded, wanted, strict=True)):
        alike[new_tokens(model, len(tokens), number), 0 if padded else len(tokens)].append(i)
    said: list[list[int]] = [[]] * len(prompts)
    parts = progress(batches(model, encoded, alike, what, batch_size), len(prompts), what, weight=len, brief=True)
    for place, answer in (pair for part in parts for pair in part):
        said[place] = answer[: wanted[place]]
    return said


def batches(
    model: LanguageModel,
    encoded: Sequence[Sequence[int]],
    alike: Mapping[tuple[int, int], list[int]],
    what: str,
    batch_size: BatchSize,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield, batch by batch, places of prompts and the new tokens after them.

    Args:
        model: the language model.
        encoded: the tokens of all prompts.
        alike: places of prompts that may run together, by how many new tokens are generated (and their length).
        what: the name of the work.
        batch_size: prompts that run at once.
    """
    for (most, _), places in sorted(alike.items()):
        places.sort(key=lambda i: len(encoded[i]))

        def work(chosen: Sequence[int], most: int = most) -> list[tuple[int, list[int]]]:
            return list(zip(chosen, generate(model, [encoded[i] for i in chosen], most), strict=True))

        size = Size.on(model.device, model.at_once(batch_size), automatic=False)
        longest = len(encoded[places[-1]]) + most
        yield from in_parts(
            places, size, work, f"A single sequence of up to {longest} tokens in the language model ({what})", what
        )


def bears_padding(model: LanguageModel) -> bool:
    """Return whether a model answers a prompt alike alone and padded, in a batch with a longer one.

    An encoder does. Of models that continue prompts, it is tried: some count padding as positions, or remember it.
    """
    if model.two_stacks:
        return True
    tokens = model.ordinary_tokens
    short, long = tokens[:3], tokens[:7]
    if len(long) == len(short) or (model.limit and model.limit.tokens < len(long) + 1):
        return False
    alone, together = (first_logits(model, prompts) for prompts in ([short], [short, long]))
    tolerance = 0.1 if model.module.dtype in (torch.float16, torch.bfloat16) else 1e-3
    return bool((alone - together).abs().max() <= tolerance * alone.std())


def first_logits(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of the first two new tokens after the first of B prompts, (2, vocabulary), in float32."""
    output = cast(Any, model.module).generate(
        **left_padded(model, prompts),
        do_sample=False,
        num_beams=1,
        max_new_tokens=2,
        min_new_tokens=2,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack([logits[0] for logits in output.logits]).float()


def left_padded(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the inputs of ``generate`` for B prompts: ids and mask, (B, T), and the padding.

    Prompts that are continued are padded on the left, the inputs of an encoder on the right.
    """
    inputs: dict[str, Any]
    if model.two_stacks:
        inputs = dict(model.padded(prompts))
    else:
        inputs = {name: tensor.flip(1) for name, tensor in model.padded([list(reversed(p)) for p in prompts]).items()}
    return inputs | {"pad_token_id": model.padding}


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


def generate(model: LanguageModel, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Return the new tokens, at most ``most``, after each of B prompts."""
    inputs, module = left_padded(model, prompts), cast(Any, model.module)
    with torch.no_grad():
        output = module.generate(
            **inputs, do_sample=False, num_return_sequences=1, return_dict_in_generate=False, max_new_tokens=most
        )
    # A decoder begins with its start token.
    rows = output[:, 1 if model.two_stacks else inputs["input_ids"].shape[1] :].tolist()
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
    return first_line_said(model, tokens[: compared(model, n_answer)])


def first_line_said(model: LanguageModel, tokens: Sequence[int]) -> str:
    """Return the first line of tokens that is not empty, with single spaces and without special tokens."""
    decoded = str(model.tokenizer.decode(list(tokens), skip_special_tokens=True))
    return plain(decoded.strip().partition("\n")[0])


def compared(model: LanguageModel, n_answer: int) -> int:
    """Return the number of tokens that :func:`beginning` looks at."""
    return n_answer if model.form == PLAIN else max(n_answer, IN_A_FORM)


def plain(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())
