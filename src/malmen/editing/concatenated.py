"""MEND-style training: the hyper-network concatenated to the language model, one graph, one backward pass (Figure 1).

Kept as the plain reference that the separated back-propagation is tested against, and for what it costs in memory
(Figure 9): every intermediate value of the hyper-network, the aggregation and the language model is alive at once.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from malmen.editing.capture import KeysAndGradients
from malmen.editing.malmen import HyperNetworkEditor, LayerSlot
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup
from malmen.models.language_model import Batch, LanguageModel


def meta_gradient_concatenated(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    captured: dict[str, KeysAndGradients],
    group: EncodedGroup,
    locality_coefficient: float,
) -> tuple[float, float]:
    """Add the gradient of the meta-loss (equation 1) to the ``grad`` of the editor's parameters, by autograd alone.

    Same arguments, result and effect as :func:`malmen.editing.training.meta_gradient`.
    """
    weights = {}
    for slot in editor.slots:
        weight, shift = slot.layer.weight, slot.layer.orient(differentiable_shift(editor, slot, captured))
        weights[f"{slot.layer.name}.weight"] = (weight + shift.to(weight.device)).to(weight.dtype)
    generalisation = torch.zeros(())
    locality = torch.zeros(())
    for batch in model.batches(group.equivalent, editor.settings.batch_size):
        nll = model.task.negative_log_likelihood(post_edit_logits(model, weights, batch), batch.targets)
        generalisation = generalisation + (batch.weights.to(nll.dtype) * nll).sum()
    for batch in model.batches(group.unrelated, editor.settings.batch_size):
        with torch.no_grad():
            before = model.answer_logits(batch)
        kl = model.task.divergence(before, post_edit_logits(model, weights, batch))
        locality = locality + (batch.weights.to(kl.dtype) * kl).sum()
    (generalisation + locality_coefficient * locality).backward()
    return generalisation.item(), locality.item()


def differentiable_shift(editor: HyperNetworkEditor, slot: LayerSlot, captured: dict[str, KeysAndGradients]) -> Tensor:
    """Return one layer's shift, (d_in, d_out), as a differentiable function of the editor's parameters."""
    rows = captured[slot.layer.name]
    keys, gradients = whole(rows.keys), whole(rows.gradients)  # (n, d_in), (n, d_out)
    network = editor.network(slot)
    if editor.settings.aggregation == "sum":
        return network.summed_shift(keys, gradients, slot.index)
    differences = network.value_differences(keys, gradients, slot.index)  # (n, d_out)
    gram = keys.T @ keys  # (d_in, d_in)
    if editor.settings.regularised:
        gram = gram + network.regularisation(slot.index) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    shift: Tensor = torch.linalg.solve(gram, keys.T @ differences)
    return shift


def post_edit_logits(model: LanguageModel, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    """Return the answer logits, (R, C), of the model with some weights replaced, by name, as the model stores them."""
    logits: Tensor = functional_call(AnswerLogits(model), {f"module.{n}": w for n, w in weights.items()}, (batch,))
    return logits


class AnswerLogits(torch.nn.Module):
    """The language model's answer logits as one module, so that ``functional_call`` can replace its weights."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.module, self.task = model.module, model.task

    def forward(self, batch: Batch) -> Tensor:
        """Return (R, C)."""
        logits: Tensor = self.task.logits(self.module, batch.inputs, batch.answer_rows)
        return logits
