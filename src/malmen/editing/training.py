"""Training a hyper-network editor with separated back-propagation (section 4.2, Algorithm 2)."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from malmen.config.hypernetwork import TrainingSettings
from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.base_outputs import BaseOutputs, LiveBaseOutputs
from malmen.editing.capture import KeysAndGradients, recording
from malmen.editing.hypernetwork import update_on_all_ranks
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor, Solution
from malmen.errors import DivergedError, UserError
from malmen.models.batching import agree_on_sizes
from malmen.models.language_model import Batch, Example, LanguageModel, shared, with_loss_weights
from malmen.results.training import MetaLosses
from malmen.runtime.checkpoint import restore_training, training_tensors
from malmen.runtime.ranks import ranks

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

    Each pass draws other equivalent prompts. The groups of the steps taken ``before`` an interruption are drawn, but
    not encoded and not yielded.
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
        equivalent=encode_on_ranks(model, draw_equivalent(group, rng), group),
        unrelated=encode_on_ranks(model, [item.unrelated for item in group], group),
    )


def encode_edits(model: LanguageModel, group: Sequence[EditTuple]) -> list[Example]:
    """Encode the edits of tuples; each keeps its tuple as ``source``, for editors that read its text."""
    encoded = encode_on_ranks(model, [item.edit for item in group], group)
    return [replace(example, source=item) for example, item in zip(encoded, group, strict=True)]


def encode_on_ranks(model: LanguageModel, pairs: Sequence[PromptAnswer], group: Sequence[EditTuple]) -> list[Example]:
    """Encode a pair of each tuple of a group; each rank encodes its share, and all get all of them."""
    here, places = ranks(), [item.id for item in group]
    try:
        with here.together():
            encoded = model.encode(here.share(pairs), here.share(places))
    except UserError:
        if not here.alone:
            with here.together():
                if here.first:
                    model.encode(pairs, places)  # names all that it cannot read, not those of one share
        raise
    return encoded if here.alone else with_loss_weights(here.all_items(encoded))


def draw_equivalent(group: Sequence[EditTuple], rng: random.Random) -> list[PromptAnswer]:
    """Draw one equivalent prompt for each tuple of a group."""
    return [PromptAnswer(rng.choice(item.equivalent), item.edit.answer) for item in group]


class MetaTrainer:
    """Takes meta-steps: one Adam over all networks, learning rates and regularisers of an editor.

    Args:
        model: the language model.
        editor: what is trained.
        settings: how it is trained.
        gradient: computes the meta-gradient; by default separated (:func:`meta_gradient`).
        base_outputs: gives the outputs of the unedited model; by default it computes them.
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
        """Return copies of all tensors that steps change, in their shapes: networks, normalisers and Adam's moments."""
        return training_tensors(self.editor.networks.state_dict(), self.optimiser)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors that :meth:`tensors` returned."""
        restore_training(self.editor.networks.state_dict(), self.optimiser, tensors)

    @property
    def remembered(self) -> int:
        """How many of the last groups the next step needs beside its own: none."""
        return 0

    def recall(self, groups: Iterable[EncodedGroup]) -> None:
        """After :meth:`restore`, take the last :attr:`remembered` groups once more, the earliest first."""

    def step(self, group: EncodedGroup) -> MetaLosses:
        """Capture a group, update the normalisers by it, and take one step along its meta-gradient.

        Raises:
            DivergedError: if a loss, shift or gradient is not finite or a system is singular; no step is taken then.
        """
        group = group.map(self.editor.weighted)
        captured = self.base_outputs.capture(self.editor, group.edit)
        update_normalisers(self.editor, captured)
        self.optimiser.zero_grad()
        generalisation, locality = self.gradient(
            self.model, self.editor, captured, group, self.settings.locality_coefficient
        )
        losses = self.clip(group.edit, generalisation, locality)
        self.optimiser.step()
        return losses

    def clip(self, edits: Sequence[Example], generalisation: float, locality: float) -> MetaLosses:
        """Scale the gradient that the parameters hold down to the largest norm; return the losses and its norm before.

        With several ranks, they agree here on batch sizes that all of them have memory for.

        Args:
            edits: with the weights of the losses' examples.
            generalisation: L_gen, summed over virtual batches.
            locality: L_loc, likewise.

        Raises:
            DivergedError: if a loss or the norm is not finite.
        """
        agree_on_sizes(self.model.sizes, self.editor.row_sizes)
        norm = torch.nn.utils.clip_grad_norm_(self.editor.networks.parameters(), self.settings.max_meta_gradient_norm)
        check_alike(float(norm))
        virtual_batches = sum(example.weight * len(example.targets) for example in edits)
        losses = MetaLosses(generalisation / virtual_batches, locality / virtual_batches, float(norm))
        if not torch.tensor([losses.generalisation, losses.locality, losses.gradient_norm]).isfinite().all():
            raise DivergedError(f"the meta-loss or meta-gradient is not finite ({losses})")
        return losses


def check_alike(norm: float) -> None:
    """Raise :class:`UserError` if the ranks' gradients are not the same bytes, so that their editors would part."""
    norms = [own for (own,) in ranks().numbers(norm)]
    if any(one != norm and not (math.isnan(one) and math.isnan(norm)) for one in norms):
        raise UserError(
            f"The ranks of this job computed different gradients ({', '.join(map(repr, norms))}), so that each would "
            "train another editor; run them on machines of one kind."
        )


def update_normalisers(editor: HyperNetworkEditor, captured: dict[str, KeysAndGradients]) -> None:
    """Add the rows [u ; grad], (n, d_in + d_out), of every layer to the running mean and variance of its network.

    Training does this, evaluation never: the validation tuples must not change the editor.
    """
    update_on_all_ranks(
        (
            editor.network(slot).normaliser,
            editor.in_rows(slot, captured[slot.layer.name], lambda rows: torch.cat((rows.keys, rows.gradients), dim=1)),
        )
        for slot in editor.slots
    )


def meta_gradient(
    model: LanguageModel,
    editor: HyperNetworkEditor,
    captured: dict[str, KeysAndGradients],
    group: EncodedGroup,
    locality_coefficient: float,
    base_outputs: BaseOutputs | None = None,
) -> tuple[float, float]:
    """Add the gradient of L_gen + lambda_loc L_loc (equation 1) to the ``grad`` of the editor's parameters.

    This is Algorithm 2, in three stages that each hold the intermediate values of one batch only: the shifts without a
    graph; the gradient G of the post-edit model's loss to each shift; and, from G, the gradient to the hyper-network.

    Args:
        model: the language model, unedited.
        editor: the editor.
        captured: by layer the edits' keys, (n, d_in), and value gradients, (n, d_out).
        group: the encoded tuples.
        locality_coefficient: lambda_loc.
        base_outputs: gives the outputs of the unedited model; by default it computes them.

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
    weights: PostEditWeights | None = None,
) -> tuple["ShiftGradients", float, float]:
    """Return G, the gradient of L_gen + lambda_loc L_loc to each layer's shift (d_in, d_out), and L_gen and L_loc.

    All three are summed over virtual batches; G is this rank's part of the sum, the losses are those of all ranks.

    Args:
        model: the language model before the edit.
        editor: the editor.
        solved: its shifts S.
        group: the encoded tuples.
        locality_coefficient: lambda_loc.
        base_outputs: gives the outputs of the model before the edit.
        weights: the weights after the edit; by default those that the model has now, plus S.
    """
    weights = weights or PostEditWeights(editor.layers, {name: solution.shift for name, solution in solved.items()})
    gradients = ShiftGradients(editor.layers, {name: solution.dual_keys for name, solution in solved.items()})
    size = editor.settings.batch_size

    def generalise(batch: Batch) -> float:
        with weights.applied(), base_outputs.after_prefix(batch), recording(editor.layers) as seen:
            return gradients.add(model.loss(batch), seen)

    def stay_local(batch: Batch) -> float:
        before, after_prefix = base_outputs.before(batch)
        with weights.applied(), after_prefix, recording(editor.layers) as seen:
            return gradients.add(model.divergence(batch, before), seen, locality_coefficient)

    with ranks().together():
        generalisation = sum(model.in_batches("generalisation loss", shared(group.equivalent), size, generalise))
        locality = sum(model.in_batches("locality loss", shared(group.unrelated), size, stay_local))
    generalisation, locality = ranks().sum_numbers(generalisation, locality)
    return gradients, generalisation, locality


class ShiftGradients:
    """Accumulates G = dL/dS of every edited layer over batches, in float32 (or 64) whatever the weights' precision.

    With a layer's inputs X, (R, d_in), and the gradients dY to its outputs, (R, d_out), G is X^T dY, (d_in, d_out).
    Where keys K, (n, d_in), are given, K G = (K X^T) dY, (n, d_out), is accumulated in its place: with few rows that
    takes fewer operations.

    Attributes:
        sums: G or K G of each layer, by name.
    """

    def __init__(self, layers: Sequence[EditedLayer], keys: Mapping[str, Tensor | None]) -> None:
        self.layers, self.keys = layers, keys
        self.sums = {}
        for layer in layers:
            precision = torch.promote_types(layer.weight.dtype, torch.float32)
            given = keys[layer.name]
            rows = layer.shape[0] if given is None else len(given)
            self.sums[layer.name] = torch.zeros(rows, layer.shape[1], dtype=precision, device=layer.weight.device)

    def add(self, loss: Tensor, seen: Mapping[str, tuple[Tensor, Tensor]], coefficient: float = 1.0) -> float:
        """Add the gradient of ``coefficient * loss``; return the loss itself.

        Args:
            loss: of a batch, a scalar.
            seen: by layer its input, (..., d_in), and its output, (..., d_out), in that batch.
            coefficient: multiplies the gradient.
        """
        gradients = torch.autograd.grad(loss, [seen[layer.name][1] for layer in self.layers])  # dY, (..., d_out)
        factors = [
            self.factors(layer.name, seen[layer.name][0].detach().flatten(0, -2), gradient.flatten(0, -2))
            for layer, gradient in zip(self.layers, gradients, strict=True)
        ]
        # Nothing is added before all factors exist: where memory runs out, the whole batch runs again.
        for layer, (left, right) in zip(self.layers, factors, strict=True):
            if right is None:
                self.sums[layer.name].add_(left, alpha=coefficient)
            else:
                self.sums[layer.name].addmm_(left, right, alpha=coefficient)
        return loss.item()

    def add_known(self, name: str, gradient: Tensor) -> None:
        """Add a gradient to a layer's shift that is known as a whole, (d_in, d_out)."""
        keys = self.keys[name]  # K, (n, d_in)
        known = gradient if keys is None else keys @ gradient.to(keys.dtype)  # (d_in, d_out) or (n, d_out)
        self.sums[name].add_(known.to(self.sums[name].device))

    def factors(self, name: str, inputs: Tensor, to_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return two matrices whose product is added to one layer's sum; or their product, and None.

        Args:
            name: the layer's name.
            inputs: X, (R, d_in).
            to_outputs: dY, (R, d_out).
        """
        keys = self.keys[name]  # K, (n, d_in)
        if keys is not None:
            return keys @ inputs.to(keys.dtype).T, to_outputs.to(keys.dtype)  # (n, R), (R, d_out)
        if inputs.dtype == self.sums[name].dtype:
            return inputs.T, to_outputs  # (d_in, R), (R, d_out)
        return inputs.T @ to_outputs, None  # (d_in, d_out) in the weights' precision
