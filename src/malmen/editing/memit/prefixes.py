"""Texts that MEMIT puts before a prompt, so that an edit holds in more than one context."""

from collections.abc import Sequence

import torch

from malmen.models.encoding import encode_text
from malmen.models.language_model import LanguageModel


@torch.no_grad()
def sample_prefixes(model: LanguageModel, starts: Sequence[str], length: int, top_k: int, seed: int) -> list[str]:
    """Let the model continue each of ``starts`` until it has ``length`` tokens, drawing from its ``top_k`` likeliest.

    The draws depend on ``seed`` alone and are made on the CPU, so that they are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    return [continuation(model, start, length, top_k, generator) for start in starts]


def continuation(model: LanguageModel, start: str, length: int, top_k: int, generator: torch.Generator) -> str:
    """Return ``start`` continued; special tokens, such as an end of text, and rows without a token are never drawn."""
    tokens = list(encode_text(model.tokenizer, start).tokens)
    while len(tokens) < min(length, model.limit.tokens if model.limit else length):
        ids = torch.tensor([tokens], device=model.device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        rows = torch.tensor([len(tokens) - 1], device=model.device)
        logits = model.task.logits(model.module, inputs, rows)[0].cpu().double()  # (vocabulary,)
        logits[[i for i in model.tokenizer.all_special_ids if i < len(logits)]] = -torch.inf
        logits[len(model.tokenizer) :] = -torch.inf
        values, candidates = logits.topk(min(top_k, len(logits)))
        tokens.append(int(candidates[torch.multinomial(values.softmax(0), 1, generator=generator)]))
    return str(model.tokenizer.decode(tokens, skip_special_tokens=True))
