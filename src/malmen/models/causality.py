"""Whether a model continues a text: what it says of a token must not depend on later ones."""

import torch
from torch import Tensor, nn

from malmen.errors import UserError
from malmen.models.language_model import LanguageModel

PROBE = 8
"""Number of tokens of the text on which a model is tried."""
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
        UserError: if it depends on later tokens.
    """
    influence = influence_on_beginning(model)  # (T,)
    earlier, later = influence[: PROBE // 2].max(), influence[PROBE // 2 :].max()
    if later > NEGLIGIBLE * earlier:
        raise UserError(
            f"{name} holds a {model.module.config.model_type!r} model in which a token sees the ones after it, such as "
            "an encoder, so it cannot continue a prompt; take a decoder-only model (for an encoder that was trained as "
            "one, set is_decoder in its config.json)."
        )


def influence_on_beginning(model: LanguageModel) -> Tensor:
    """Return the norm of the gradient of the outputs at the first half of a text, by token, (T,)."""
    ids = probe(model)  # (1, T)
    embedded: list[Tensor] = []

    def follow(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    embedding = model.module.get_input_embeddings()
    with torch.enable_grad(), embedding.register_forward_hook(follow):
        outputs = model.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        beginning = outputs[:, : PROBE // 2].float().square().sum()
        (gradient,) = torch.autograd.grad(beginning, embedded[:1])  # (1, T, d)
    influence: Tensor = gradient.float().norm(dim=-1).flatten()
    return influence


def probe(model: LanguageModel) -> Tensor:
    """Return ordinary tokens from all over the vocabulary, (1, T)."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    known = sorted(i for i in set(tokenizer.get_vocab().values()) - special if i < model.vocabulary.inputs)
    ids = known or range(model.vocabulary.inputs)
    return model.tensor([[ids[number * len(ids) // PROBE] for number in range(PROBE)]])
