"""Two short sequences of different lengths, on which a model is tried before any work."""

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
    """Return two sequences of ordinary tokens, with answers of different lengths, as far as the model reads so many."""
    tokens = model.ordinary_tokens
    longest = min(LENGTHS[0], model.limit.tokens) if model.limit else LENGTHS[0]
    examples = []
    for number, (wanted, most) in enumerate(zip(LENGTHS, ANSWERS, strict=True)):
        length = max(1, min(wanted, longest - number))
        answer = min(most, length)
        places = (((number + 1) * (i + 1) + after) * len(tokens) // 20 % len(tokens) for i in range(length))
        ids = tuple(tokens[place] for place in places)
        if isinstance(model.task, FactChecking):
            examples.append(Example(ids, (0,), (number,)))
        elif model.two_stacks:
            examples.append(Example(ids, tuple(range(answer)), ids[:answer], decoder_tokens=ids[-answer:]))
        else:
            examples.append(Example(ids, tuple(range(length - answer, length)), ids[:answer]))
    return examples


def rows_agree(model: LanguageModel, found: Tensor, expected: Tensor) -> bool:
    """Return whether rows that the model computed in two ways, both (R, d), differ by rounding only."""
    if found.shape != expected.shape:
        return False
    finite = found.isfinite().all(1) | expected.isfinite().all(1)  # (R,); broken weights are named where they matter
    found, expected = found[finite], expected[finite]
    if not len(found):
        return True
    scale = expected.norm(dim=1)  # (R,)
    errors = (found - expected).norm(dim=1) / scale.clamp(min=max(1e-6 * float(scale.max()), 1e-30))  # (R,)
    if model.module.dtype in TOLERANCE:
        return bool(errors.max() <= TOLERANCE[model.module.dtype])
    return bool(errors.median() <= HALF_TOLERANCE)
