"""Training a hyper-network editor with separated back-propagation (section 4.2, Algorithm 2)."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from malmen.config.hypernetwork import TrainingSettings
from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.base_outputs import BaseOutputs, LiveBaseOutputs
from malmen.editing.capture import KeysAndGradients, recording
from malmen.editing.editor import HyperNetworkEditor, Solution
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.results.training import MetaLosses
from malmen.runtime.checkpoint import restore_training, training_tensors

EncodedGroup: TypeAlias = Triple[list[Example]]
"""The encoded tuples of one meta-step: m edits, and one equivalent and one unrelated tuple for each."""


MetaGradient = Callable[
    [LanguageModel, HyperNetworkEditor, dict[str, KeysAndGradients], EncodedGroup, float], tuple[float, float]
]
"""Adds the meta-gradient to the ``grad`` of an editor's parameters and returns L_gen and L_loc."""


def draw_groups(
    model: LanguageModel, tuples: Sequence[EditTuple], n_edits: int, steps: int, rng: random.Random, before: int = 0
) -> Iterator[EncodedGroup]:
    """Yield groups of m tuples without replacement, pass after pass; the incomplete group of a pass is dropped.

    An equivalent prompt is drawn anew for every edit tuple each time it comes by. The groups of the steps taken
    ``before`` an interruption are drawn, but not encoded and not yielded.
    """
    order: list[EditTuple] = []
    for step in range(steps):
        if len(order) < n_edits:
            order = rng.sample(list(tuples), len(tuples))
        group, order = order[:n_edits], order[n_edits:]
        if step < before:
            draw_equivalent(group, rng)
        else:
            yield encode_group(model, group, rng)


def encode_group(model: LanguageModel, group: Sequence[EditTuple], rng: random.Random) -> EncodedGroup:
    """Encode a group, drawing one equivalent prompt for each of its tuples."""
    return Triple(
        edit=encode_edits(model, group),
        equivalent=model.encode(draw_equivalent(group, rng)),
        unrelated=model.encode([item.unrelated for item in group]),
    )


def encode_edits(model: LanguageModel, group: Sequence[EditTuple]) -> list[Example]:
    """Encode the edits of tuples; each keeps its tuple as ``source``, for editors that look at the text."""
    encoded = model.encode([item.edit for item in group])
    return [replace(example, source=item) for example, item in zip(encoded, group, strict=True)]


def draw_equivalent(group: Sequence[EditTuple], rng: random.Random) -> list[PromptAnswer]:
    """Draw one equivalent prompt for each tuple of a group."""
    return [PromptAnswer(rng.choice(item.equivalent), item.edit.answer) for item in group]


class MetaTrainer:
    """Takes meta-steps: one Adam over all networks, learning rates and regularisers of an editor.

    Args:
        model: the language model.
        editor: what is trained.
        settings: how.
        gradient: how the meta-gradient is computed; separated (:func:`meta_gradient`) unless another way is given.
        base_outputs: what is known of the unedited model; computed anew unless given.
    """

    def __init__(
        self,
        model: LanguageModel,
        editor: HyperNetworkEditor,
        settings: TrainingSettings,
        gradient: MetaGradient | None = None,
        base_outputs: BaseOutputs | None = None,
    ) -> None:
        self.model, self.editor, self.settings = model, editor, settings
        self.base_outputs = base_outputs or LiveBaseOutputs(model, editor.layers)
        self.gradient = gradient or partial(meta_gradient, base_outputs=self.base_outputs)
        self.optimiser = torch.optim.Adam(editor.networks.parameters(), lr=settings.meta_learning_rate, fused=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all that steps change: networks, normalisers and what Adam remembers."""
        return training_tensors(self.editor.networks.state_dict(), self.optimiser)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` returned."""
        restore_training(self.editor.networks.state_dict(), self.optimiser, tensors)

    def step(self, group: EncodedGroup) -> MetaLosses:
        """Capture a group, update the normalisers by it, and take one step along its meta-gradient.

        Raises:
            DivergedError: if a loss, shift or gradient is not finite or a system is singular; no step is taken then.
        """
        captured = self.base_outputs.capture(self.editor, group.edit)
        update_normalisers(self.editor, captured)
        self.optimiser.zero_grad()
        generalisation, locality = self.gradient(
            self.model, self.editor, captured, group, self.settings.locality_coefficient
        )
        norm = torch.nn.utils.clip_grad_norm_(self.editor.networks.parameters(), self.settings.max_meta_gradient_norm)
        virtual_batches = sum(example.weight * len(example.targets) for example in group.edit)
        losses = MetaLosses(generalisation / virtual_batches, locality / virtual_batches, float(norm))
        if not torch.tensor([losses.generalisation, losses.locality, losses.gradient_norm]).isfinite().all():
            raise DivergedError(f"the meta-loss or meta-gradient is not finite ({losses})")
        self.optimiser.step()
        return losses


def update_normalisers(editor: HyperNetworkEditor, captured: dict[str, KeysAndGradients]) -> None:
    """Take the cached rows of every layer into the statistics of its network (in training, never in evaluation)."""
    for slot in editor.slots:
        update = editor.network(slot).normaliser.update
        for rows in editor.in_rows(
            slot, captured[slot.layer.name], lambda rows: torch.cat((rows.keys, rows.gradients), 1)
        ):
            update(rows)


def meta_gradient(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    captured: dict[str, KeysAndGradients],
    group: EncodedGroup,
    locality_coefficient: float,
    base_outputs: BaseOutputs | None = None,
) -> tuple[float, float]:
    """Add the gradient of L_gen + lambda_loc L_loc to the ``grad`` of the editor's parameters (Algorithm 2).

    Three stages, none of which holds the intermediate values of more than one batch: the shifts without a graph; the
    gradient G of the post-edit model's loss to each shift; and, from G, the gradient to the hyper-network.

    Returns:
        L_gen and L_loc, summed over virtual batches.
    """
    solved = editor.solve(captured, for_backward=True)
    base_outputs = base_outputs or LiveBaseOutputs(model, editor.layers)
    gradients, generalisation, locality = shift_gradients(
        model, editor, solved, group, locality_coefficient, base_outputs
    )
    editor.backward(captured, solved, gradients.sums)
    return generalisation, locality


def shift_gradients(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    solved: Mapping[str, Solution],
    group: EncodedGroup,
    locality_coefficient: float,
    base_outputs: BaseOutputs,
) -> tuple["ShiftGradients", float, float]:
    """Return the gradient of L_gen + lambda_loc L_loc to the shifts, L_gen and L_loc, summed over virtual batches."""
    weights = PostEditWeights(editor.layers, {name: solution.shift for name, solution in solved.items()})
    gradients = ShiftGradients(editor.layers, {name: solution.dual_keys for name, solution in solved.items()})
    size = editor.settings.batch_size

    def generalise(batch: Batch) -> float:
        with weights.applied(), base_outputs.after_prefix(batch), recording(editor.layers) as seen:
            return gradients.add(model.loss(batch), seen)

    def stay_local(batch: Batch) -> float:
        before, after_prefix = base_outputs.before(batch)
        with weights.applied(), after_prefix, recording(editor.layers) as seen:
            return gradients.add(model.divergence(batch, before), seen, locality_coefficient)

    generalisation = sum(model.in_batches("generalisation", group.equivalent, size, generalise))
    locality = sum(model.in_batches("locality", group.unrelated, size, stay_local))
    return gradients, generalisation, locality


class ShiftGradients:
    """Accumulates dL/dS of every edited layer over batches, in float32 (or 64) whatever the weights' precision.

    With a layer's inputs X as rows, and the gradients dY to its outputs, it is X^T dY. Where keys K are given,
    K dL/dS = (K X^T) dY is accumulated in its place: with few of them that takes fewer operations.
    """

    def __init__(self, layers: Sequence[EditedLayer], keys: Mapping[str, Tensor | None]) -> None:
        self.layers, self.keys = layers, keys
        self.sums = {layer.name: self.zeros(layer, keys[layer.name]) for layer in layers}

    @staticmethod
    def zeros(layer: EditedLayer, keys: Tensor | None) -> Tensor:
        """Return a matrix to add to."""
        precision = torch.promote_types(layer.weight.dtype, torch.float32)
        rows = layer.shape[0] if keys is None else len(keys)
        return torch.zeros(rows, layer.shape[1], dtype=precision, device=layer.weight.device)

    def add(self, loss: Tensor, seen: Mapping[str, tuple[Tensor, Tensor]], coefficient: float = 1.0) -> float:
        """Add the gradient of ``coefficient * loss``, given each layer's input and output; return the plain loss."""
        gradients = torch.autograd.grad(loss, [seen[layer.name][1] for layer in self.layers])
        factors = [
            self.factors(layer.name, seen[layer.name][0].detach().flatten(0, -2), gradient.flatten(0, -2))
            for layer, gradient in zip(self.layers, gradients, strict=True)
        ]
        # Added only once they are all there: had memory run out before, the batch would be run again.
        for layer, (left, right) in zip(self.layers, factors, strict=True):
            if right is None:
                self.sums[layer.name].add_(left, alpha=coefficient)
            else:
                self.sums[layer.name].addmm_(left, right, alpha=coefficient)
        return loss.item()

    def factors(self, name: str, inputs: Tensor, to_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return two matrices whose product is what a batch gives to one layer's sum; or the product, and None."""
        keys = self.keys[name]
        if keys is not None:
            return keys @ inputs.to(keys.dtype).T, to_outputs.to(keys.dtype)
        if inputs.dtype == self.sums[name].dtype:
            return inputs.T, to_outputs
        return inputs.T @ to_outputs, None
