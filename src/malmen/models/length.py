"""How many tokens a model reads at most, by its own configuration and its tokenizer."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER

from malmen.errors import UserError
from malmen.models.text_config import text_config

COMMON = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length", "max_target_positions")
ENCODER = ("max_encoder_position_embeddings", "max_source_positions", *COMMON)
DECODER = ("max_decoder_position_embeddings", *COMMON)
"""What configurations call the limit of a stack."""


@dataclass(frozen=True)
class Limit:
    """A number of tokens, and what sets it.

    Attributes:
        tokens: the longest sequence.
        source: what says so, such as "max_seq_len in its configuration".
    """

    tokens: int
    source: str

    def __str__(self) -> str:
        return f"{self.tokens} ({self.source})"


def length_limit(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, in_decoder: bool = False
) -> Limit | None:
    """Return the longest sequence that a model reads; None if neither it nor its tokenizer has a limit.

    Models whose positions are relative, such as ALiBi's and T5's, and recurrent ones need not have a limit.

    Args:
        module: the model.
        tokenizer: its tokenizer.
        in_decoder: whether the sequence is that of an encoder-decoder's decoder.

    Raises:
        UserError: if the tokenizer's limit is no number of tokens.
    """
    config = text_config(module.config)
    limits = []
    for name in DECODER if in_decoder else ENCODER:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            stored = (getattr(config, "attribute_map", None) or {}).get(name, name)
            limits.append(Limit(value - unused_positions(module, value), f"{stored} in its configuration"))
            break
    stated = tokenizer.model_max_length
    if not isinstance(stated, int | float) or stated < 1:
        raise UserError(
            f"The tokenizer's model_max_length is {stated!r} but must be a number of tokens; correct it in "
            "tokenizer_config.json, or take it out."
        )
    if stated < LARGE_INTEGER:
        limits.append(Limit(int(stated), "model_max_length of its tokenizer"))
    return min(limits, key=lambda limit: limit.tokens, default=None)


def unused_positions(module: nn.Module, positions: int) -> int:
    """Return how many rows of a table of ``positions`` come before the first token's: RoBERTa's are for padding."""
    tables = {name: table for name, table in module.named_modules() if isinstance(table, nn.Embedding)}
    for name, table in tables.items():
        of_positions = name.endswith("position_embeddings") and table.num_embeddings == positions
        if of_positions and table.padding_idx is not None:
            return table.padding_idx + 1
    return 0
