"""Whether a model computes the layers to edit as editors need it, tried on two short sequences before any work."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from malmen.config.base import Tokens
from malmen.editing.capture import capture_batch, recording
from malmen.editing.layers import EditedLayer
from malmen.editing.probe import probe_batch, probe_examples, rows_agree
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.runtime.progress import logger


def check_layers(model: LanguageModel, layers: Sequence[EditedLayer], tokens: Tokens) -> None:
    """Refuse layers whose keys or gradients are not what the editors take them for.

    Each layer must run once, compute u W + b from one row for each token, and give the same rows for a sequence alone
    and beside a longer one. A model whose prompts cannot be cached apart from its answers runs them together.

    Args:
        model: the language model.
        layers: the layers that will be edited.
        tokens: which positions are captured.

    Raises:
        UserError: if a layer does not; says which and what to choose instead.
    """
    try:
        check_prompts(model)
        check_linear(model, layers)
        check_padding(model, layers, tokens)
    except UserError:
        raise
    except Exception as error:  # The code of a model may fail in any way.
        what, message = type(error).__name__, (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"The model cannot compute keys and gradients of layers {layers[0].name} to {layers[-1].name} ({what}: "
            f"{message}); choose other layers, or edit by fine-tuning."
        ) from None


@torch.no_grad()
def check_prompts(model: LanguageModel) -> None:
    """Let the model run prompts and answers together unless their keys and values can be cached apart."""
    batch = probe_batch(model)
    whole = model.answer_logits(replace(batch, everywhere=True))
    if model.caches_prompts and not rows_agree(model, model.answer_logits(model.after_prompts(batch)), whole):
        logger.info("The model runs prompts with their answers: it does not go on from cached keys and values alike")
        model.caches_prompts = False


@torch.no_grad()
def check_linear(model: LanguageModel, layers: Sequence[EditedLayer]) -> None:
    """Refuse a layer that does not compute u W + b, such as one that quantises u."""
    with recording(layers) as seen:
        model.answer_logits(probe_batch(model))
    for layer in layers:
        inputs, outputs = (tensor.reshape(-1, tensor.shape[-1]) for tensor in seen[layer.name])  # (n, d_in), (n, d_out)
        expected = inputs.to(outputs) @ layer.orient(layer.weight).to(outputs)  # (n, d_out)
        bias = getattr(layer.module, "bias", None)
        if not rows_agree(model, outputs, expected if bias is None else expected + bias.to(outputs)):
            raise UserError(
                f"Layer {layer.name} does not compute the product of its input and its weight (it may be quantised, or "
                "have an adapter); choose another layer, or a model without it."
            )


def check_padding(model: LanguageModel, layers: Sequence[EditedLayer], tokens: Tokens) -> None:
    """Refuse a layer whose keys or gradients depend on what else is in the batch."""
    together = capture_batch(model, layers, probe_batch(model), tokens)
    apart = [capture_batch(model, layers, model.collate([one], [0]), tokens) for one in probe_examples(model)]
    for layer in layers:
        for number, what in enumerate(("keys", "value gradients")):
            expected = torch.cat([captured[layer.name][number] for captured in apart])
            if not expected.isfinite().all():
                raise UserError(f"The {what} of layer {layer.name} are not finite on a short text; check the weights.")
            if not expected.any():
                raise UserError(f"The {what} of layer {layer.name} are 0 on a short text; choose another layer.")
            if not rows_agree(model, together[layer.name][number], expected):
                raise UserError(
                    f"The {what} of layer {layer.name} depend on what else is in the batch (padding, or its rows are "
                    "not in the order of the tokens); choose another layer or model."
                )
