"""Two short sequences of different lengths, on which a model is tried before any work."""

from typing import Any

import torch
from torch import Tensor

from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.models.tasks import FactChecking

LENGTHS = (9, 6)
ANSWERS = (4, 2)

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest relative difference of two ways to compute the same row, by the precision of the model."""
HALF_TOLERANCE = 0.05
"""The same for half precision, of the median row: where a mixture of experts rounds, a token may go to another."""


def probe_batch(model: LanguageModel, after: int = 0) -> Batch:
    """Return both sequences as one batch, the shorter one padded; each ``after`` gives other tokens."""
    return model.collate(probe_examples(model, after), range(len(LENGTHS)))


def probe_examples(model: LanguageModel, after: int = 0) -> list[Example]:
    """Return two sequences of ordinary tokens, with answers of different lengths."""
    tokens = ordinary_tokens(model)
    examples = []
    for number, (length, answer) in enumerate(zip(LENGTHS, ANSWERS, strict=True)):
        ids = [tokens[((number + 1) * (i + 1) + after) % len(tokens)] for i in range(length)]
        if isinstance(model.task, FactChecking):
            examples.append(Example(tuple(ids), (0,), (number,)))
        elif model.two_stacks:
            examples.append(
                Example(tuple(ids), tuple(range(answer)), tuple(ids[:answer]), decoder_tokens=tuple(ids[-answer:]))
            )
        else:
            positions = range(length - answer, length)
            examples.append(Example(tuple(ids), tuple(positions), tuple(ids[:answer])))
    return examples


def ordinary_tokens(model: LanguageModel) -> list[int]:
    """Return up to 20 token ids that both the tokenizer and the embedding have, and that mean text."""
    embedding: Any = model.module.get_input_embeddings()
    rows = embedding.weight.shape[0]
    settings = model.module.config.to_dict().items()  # name the tokens that stand for images or sound
    named = [value for key, value in settings if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)]
    special = {*model.tokenizer.all_special_ids, *named}
    known = [token for token in range(min(rows, len(model.tokenizer))) if token not in special]
    return known[:: max(1, len(known) // 20)][:20] or [0]


def rows_agree(model: LanguageModel, found: Tensor, expected: Tensor) -> bool:
    """Return whether rows that the model computed in two ways, both (R, d), differ by rounding only."""
    if found.shape != expected.shape:
        return False
    scale = expected.norm(dim=1)  # (R,)
    errors = (found - expected).norm(dim=1) / scale.clamp(min=max(1e-6 * float(scale.max()), 1e-30))  # (R,)
    if model.module.dtype in TOLERANCE:
        return bool(errors.max() <= TOLERANCE[model.module.dtype])
    return bool(errors.median() <= HALF_TOLERANCE)
