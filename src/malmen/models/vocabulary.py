"""Whether a model has a row for every token: tokens can be added to a tokenizer without resizing its model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.errors import UserError
from malmen.models.text_config import text_config


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of rows; a token id must be smaller.

    Attributes:
        inputs: of the embedding (of an encoder-decoder: of its encoder).
        decoder_inputs: of the embedding of an encoder-decoder's decoder; else as ``inputs``.
        outputs: of the output head.
    """

    inputs: int
    decoder_inputs: int
    outputs: int

    @classmethod
    def of(cls, module: PreTrainedModel) -> "Vocabulary":
        """Return the numbers of rows of a model."""
        size = int(text_config(module.config).vocab_size)
        inputs = rows_of(module.get_input_embeddings(), size)
        decoder = module.get_decoder().get_input_embeddings() if module.config.is_encoder_decoder else None
        return cls(inputs, rows_of(decoder, inputs), rows_of(module.get_output_embeddings(), size))

    def check(
        self,
        prompt: str,
        tokenizer: PreTrainedTokenizerBase,
        tokens: Iterable[int],
        decoder_tokens: Iterable[int],
        targets: Iterable[int],
    ) -> None:
        """Refuse a prompt and answer with a token that the model has no row for.

        Args:
            prompt: the prompt, for the message.
            tokenizer: the tokenizer.
            tokens: token ids of the input.
            decoder_tokens: token ids of the decoder's input.
            targets: token ids that the model should output.

        Raises:
            UserError: if there is such a token; names it.
        """
        for name, rows, used in (
            ("embedding", self.inputs, tokens),
            ("decoder's embedding", self.decoder_inputs, decoder_tokens),
            ("output head", self.outputs, targets),
        ):
            if (largest := max(used, default=0)) >= rows:
                raise UserError(
                    f"{prompt!r} or its answer has the token {tokenizer.convert_ids_to_tokens(largest)!r} with id "
                    f"{largest}, but the model's {name} has only {rows} rows; resize the model "
                    "(resize_token_embeddings), or take the tokenizer that belongs to it."
                )


def ordinary_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n_rows: int) -> Sequence[int]:
    """Return the tokens that mean text and that the embedding has a row for; all that it has if there are none."""
    settings = module.config.to_dict().items()
    # The configuration names tokens that stand for images or sound.
    named = {value for key, value in settings if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)}
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *named}
    known = sorted(i for i in set(tokenizer.get_vocab().values()) - special if i < n_rows)
    return known or range(n_rows)


def rows_of(layer: Any, otherwise: int) -> int:
    """Return the number of rows of an embedding or of an output head; ``otherwise`` if there is none."""
    weight = getattr(layer, "weight", None)
    return otherwise if weight is None else int(weight.shape[0])
