"""Answers that end with the end-of-sequence token, so that a model learns where they end.

Elsewhere answers have no such token: the paper's metrics compare their own tokens only.
"""

from collections.abc import Sequence
from dataclasses import replace

from malmen.errors import UserError
from malmen.models.encoding import UnreadableError
from malmen.models.language_model import Example, LanguageModel
from malmen.models.tasks import FactChecking


def with_end(model: LanguageModel, examples: Sequence[Example]) -> list[Example]:
    """Return examples whose answers have the tokenizer's end-of-sequence token as their last target.

    The input (of an encoder-decoder: its decoder's) then goes on by the answer's last token, whose position outputs it.

    Raises:
        UserError: if the model checks facts, its tokenizer has no such token, the model has no row for it, or a longer
            sequence does not fit.
    """
    if isinstance(model.task, FactChecking):
        raise UserError("A fact checker's answer is one logit, which has no end; leave out end_of_sequence.")
    end = model.tokenizer.eos_token_id
    if end is None:
        raise UserError("The tokenizer has no end-of-sequence token; leave out end_of_sequence, or add one to it.")
    if end >= model.vocabulary.outputs:
        raise UserError(
            f"The tokenizer's end-of-sequence token has id {end}, but the model's output head has only "
            f"{model.vocabulary.outputs} rows; leave out end_of_sequence, or take the tokenizer that belongs to it."
        )
    return [ended(model, example, end) for example in examples]


def ended(model: LanguageModel, example: Example, end: int) -> Example:
    """Return an example whose answer ends with the token ``end``; raise :class:`UserError` if it is then too long."""
    longer = replace(example, targets=(*example.targets, end))
    if model.two_stacks:
        longer = replace(longer, decoder_tokens=(*example.decoder_tokens, example.targets[-1]))
        length, limit = len(longer.decoder_tokens), model.decoder_limit
    else:
        longer = replace(longer, tokens=(*example.tokens, example.targets[-1]))
        length, limit = len(longer.tokens), model.limit
    if limit is not None and length > limit.tokens:
        prompt = example.source.edit.prompt if example.source else model.tokenizer.decode(list(example.tokens))
        raise UnreadableError(
            f"{prompt!r} with its answer and the end of the sequence has {length} tokens; the model reads {limit}; "
            "drop it, or leave out end_of_sequence."
        )
    return replace(longer, answer_positions=(*example.answer_positions, length - 1))
