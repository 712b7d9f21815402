"""Plain greedy decoding: each token is the most probable one after the model's own earlier tokens.

Generation settings have no say here: nothing is penalised, forced or forbidden, and decoding goes on after an end of
the sequence. So what is decoded is the arg max that teacher forcing scores, but after the model's own prefix.
:mod:`malmen.models.generation` decodes as a user sees it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.errors import DivergedError
from malmen.models.batching import Size, in_parts
from malmen.models.encoding import encode_text
from malmen.models.language_model import Example, LanguageModel
from malmen.models.tasks import decoder_start
from malmen.runtime.progress import progress
from malmen.runtime.ranks import ranks


@dataclass(frozen=True, order=True)
class Opening:
    """What stands before the tokens that a model decodes.

    Attributes:
        prefix: token ids that the decoder reads first, length P >= 1: the prompt, or an encoder-decoder's start tokens.
        encoded: token ids that an encoder reads, length E; empty for a decoder-only model.
    """

    prefix: tuple[int, ...]
    encoded: tuple[int, ...] = ()

    @property
    def lengths(self) -> tuple[int, int]:
        """Return the numbers of tokens that an encoder reads and that the decoder reads: E and P."""
        return len(self.encoded), len(self.prefix)

    @classmethod
    def of_example(cls, model: LanguageModel, example: Example) -> "Opening":
        """Return what teacher forcing reads before the first answer token of an encoded tuple."""
        end = example.answer_positions[0] + 1
        if model.two_stacks:
            return cls(example.decoder_tokens[:end], example.tokens)
        return cls(example.tokens[:end])

    @classmethod
    def of_prompt(cls, model: LanguageModel, prompt: str) -> "Opening":
        """Return the opening of a prompt alone, as a user types it, in the model's form.

        It is that of the prompt's encoded tuple, unless the tokenizer joins the prompt's end and the answer's beginning
        into other tokens.
        """
        text = model.form.text(prompt)
        if not model.two_stacks:
            return cls(encode_text(model.tokenizer, text).tokens)
        begun = encode_text(model.tokenizer, "a", closed=True, as_target=True).before
        return cls((decoder_start(model.module), *begun), encode_text(model.tokenizer, text, closed=True).tokens)

    def room(self, model: LanguageModel) -> int:
        """Return how many tokens the model can decode after the opening, as far as it reads; at least 1."""
        limit = model.decoder_limit if model.two_stacks else model.limit
        # The last token that is decoded is not read again.
        return max(1, limit.tokens - len(self.prefix) + 1) if limit else 2**31


def decode(
    model: LanguageModel,
    wanted: Mapping[Opening, int],
    batch_size: BatchSize,
    description: str = "decoding",
) -> dict[Opening, list[int]]:
    """Decode greedily after several openings.

    Openings of the same lengths run together, so that no batch has padding: nothing depends on how a model treats it.
    Each rank decodes its share of them.

    Args:
        model: the language model; not a fact checker.
        wanted: how many tokens are decoded after each opening, at least 1.
        batch_size: openings run at once.
        description: what progress lines call this.

    Returns:
        The token ids after each opening, as many as are wanted.

    Raises:
        DivergedError: if a logit is not a number.
    """
    # Those of one length are sorted by how much is wanted, so that a batch decodes few tokens in vain.
    order = sorted(wanted, key=lambda opening: (*opening.lengths, wanted[opening], opening))
    mine, alike = ranks().share(order), dict[tuple[int, int], list[Opening]]()
    for opening in mine:
        alike.setdefault(opening.lengths, []).append(opening)
    found: dict[Opening, list[int]] = {}
    parts = progress(
        decoded_parts(model, wanted, alike, batch_size, description),
        len(mine),
        description,
        weight=len,
        unit="prompts",
        brief=True,
    )
    with ranks().together():
        for part in parts:
            found |= part
    return {opening: tokens for share in ranks().gathered(found) for opening, tokens in share.items()}


def decoded_parts(
    model: LanguageModel,
    wanted: Mapping[Opening, int],
    alike: Mapping[tuple[int, int], Sequence[Opening]],
    batch_size: BatchSize,
    description: str,
) -> Iterator[dict[Opening, list[int]]]:
    """Yield the tokens after openings, batch by batch; arguments and errors as in :func:`decode`.

    ``alike`` holds the openings by the lengths that they share.
    """
    size = Size.on(model.device, model.at_once(batch_size), automatic=False)
    for openings in alike.values():

        def work(chosen: Sequence[Opening]) -> dict[Opening, list[int]]:
            rows = decode_batch(model, chosen, max(wanted[opening] for opening in chosen))
            return {opening: row[: wanted[opening]] for opening, row in zip(chosen, rows.tolist(), strict=True)}

        longest = len(openings[-1].encoded) + len(openings[-1].prefix) + wanted[openings[-1]]
        what = f"A single sequence of up to {longest} tokens in the language model ({description})"
        yield from in_parts(openings, size, work, what, "sequences: decoding")


@torch.no_grad()
def decode_batch(model: LanguageModel, openings: Sequence[Opening], number: int) -> Tensor:
    """Return the ``number`` most probable tokens, one after the other, after B openings of the same lengths.

    Each step reads the last token and the key-value cache of what was read before; a model without such a cache reads
    everything again.

    Returns:
        Token ids, (B, number).

    Raises:
        DivergedError: if a logit is not a number.
    """
    inputs: dict[str, Any] = {"use_cache": True}
    if model.two_stacks:
        encoded = model.tensor([opening.encoded for opening in openings])  # (B, E)
        inputs["attention_mask"] = torch.ones_like(encoded)
        encoder: Any = model.module.get_encoder()
        inputs["encoder_outputs"] = encoder(input_ids=encoded, attention_mask=inputs["attention_mask"])
    rows = model.vocabulary.decoder_inputs
    read = model.tensor([opening.prefix for opening in openings])  # (B, P), and then all that was decoded
    ahead, found = read, []
    head: Any = model.module.get_output_embeddings()
    # The head sees the last position alone; there is no padding, so that is the last token of every sequence.
    with head.register_forward_pre_hook(lambda _, seen: (seen[0][:, -1:], *seen[1:])):
        for _ in range(number):
            output = model.module(**inputs, **{"decoder_input_ids" if model.two_stacks else "input_ids": ahead})
            logits: Tensor = output.logits[:, -1]  # (B, C)
            if logits.isnan().any():
                raise DivergedError("an output of the model is not a number")
            found.append(logits.argmax(-1).to(model.device))
            # A head may have more rows than the embedding; a token of theirs cannot be read.
            read = torch.cat((read, found[-1].clamp(max=rows - 1).unsqueeze(1)), dim=1)
            cache = getattr(output, model.cache_name, None)
            if cache is not None:
                inputs[model.cache_name] = cache
            ahead = read if cache is None else read[:, -1:]
    return torch.stack(found, dim=1)
