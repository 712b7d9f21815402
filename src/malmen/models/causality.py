"""Whether a model continues a text: what it says of a token must not depend on later ones."""

import torch
from torch import Tensor, nn

from malmen.errors import UserError, first_line
from malmen.models.language_model import LanguageModel

PROBE = 8
"""Number of tokens of the text on which a model is tried, if it reads so many."""
NEGLIGIBLE = 1e-5
"""How much later tokens may matter, relative to earlier ones. In a causal model they do not matter at all: even
rounding cannot bring them in. In encoders with random weights it is 1e-3 and more."""


def check_causal(model: LanguageModel, name: str) -> None:
    """Refuse a model whose outputs at the first tokens of a text depend on the last ones.

    The gradient of the first outputs with respect to the embeddings of the last tokens must vanish. Comparing outputs
    would mistake rounding, which differs where experts share a batch, for such a dependence, and the other way round.

    Args:
        model: a model for the task of continuing a prompt.
        name: its directory, for the message.

    Raises:
        UserError: if it depends on later tokens, or cannot be run.
    """
    ids = probe(model)  # (1, T)
    half = ids.shape[1] // 2
    kind = model.module.config.model_type
    try:
        influence = influence_on_beginning(model, ids, half)  # (T,)
    except Exception as error:  # A model raises errors of any kind where it cannot run in some precision.
        raise UserError(
            f"{name} holds a {kind!r} model that fails on a text of {ids.shape[1]} tokens in {model.module.dtype} "
            f"({first_line(error)}); try another precision, or take another model."
        ) from None
    if influence[half:].max() > NEGLIGIBLE * influence.max():
        raise UserError(
            f"{name} holds a {kind!r} model in which a token sees the ones after it, such as "
            "an encoder, so it cannot continue a prompt; take a decoder-only model (for an encoder that was trained as "
            "one, set is_decoder in its config.json)."
        )


def influence_on_beginning(model: LanguageModel, ids: Tensor, length: int) -> Tensor:
    """Return for each token of a text, (1, T), the norm of the gradient of its first ``length`` outputs, (T,)."""
    embedded: list[Tensor] = []

    def follow(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some models overwrite it

    embedding = model.module.get_input_embeddings()
    with torch.enable_grad(), embedding.register_forward_hook(follow):
        outputs = model.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        beginning = outputs[:, :length].float().square().sum()
        (gradient,) = torch.autograd.grad(beginning, embedded[:1])  # (1, T, d)
    influence: Tensor = gradient.float().norm(dim=-1).flatten()
    return influence


def probe(model: LanguageModel) -> Tensor:
    """Return ordinary tokens from all over the vocabulary, (1, T)."""
    ids = model.ordinary_tokens
    length = min(PROBE, model.limit.tokens) if model.limit else PROBE
    return model.tensor([[ids[number * len(ids) // length] for number in range(length)]])
