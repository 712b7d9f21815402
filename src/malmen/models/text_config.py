"""A model's settings for language, wherever its configuration keeps them."""

from transformers import PretrainedConfig

from malmen.errors import UserError


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a model's configuration that describes its language model.

    Models that read more than text (Gemma 3, Mistral 3, Llama 4) nest it; for all others it is the configuration
    itself. Size, length and vocabulary are read from here. Whether the model is an encoder-decoder, and its model type,
    are said by the outer configuration.

    Raises:
        UserError: if the configuration holds several language models.
    """
    # For a flat encoder-decoder, decoder=True would return a copy under other names.
    decoder = None if config.is_encoder_decoder else True
    try:
        return config.get_text_config(decoder=decoder)
    except ValueError:
        raise UserError(
            f"A model of type {config.model_type!r} joins several language models; edit one of them alone."
        ) from None
