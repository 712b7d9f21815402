"""Editing by fine-tuning some FFN weights on the edits: a few epochs of AdamW.

With the default settings it is the paper's FT (appendix A.5). With others it is LocFT-BF (ICLR 2026), which tunes one
layer on all edits until they are learned.

Of several ranks, each runs its own edits of a minibatch, always the same ones: it keeps their states after the frozen
blocks. All add up their losses and gradients, and then take the same step.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from malmen.config.finetuning import FineTuningSettings, Loss
from malmen.editing.blocks import PrefixStates
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.errors import DivergedError, UserError
from malmen.models.end_of_sequence import with_end
from malmen.models.language_model import Example, LanguageModel, shared
from malmen.runtime.progress import progress
from malmen.runtime.ranks import ranks


@dataclass(frozen=True)
class FineTuningEditor:
    """Tunes the weights of ``layers`` on the edits, each time from the weights as they are.

    Attributes:
        layers: the tuned layers.
        settings: how they are tuned.
        seed: of the order in which edits are seen.
        enough: tuning ends early, after an epoch in which the loss of every minibatch was below this; the paper's FT
            always makes all epochs. It is stricter than the settings' ``stop_loss``, which looks at the mean.
    """

    layers: Sequence[EditedLayer]
    settings: FineTuningSettings
    seed: int
    enough: float = 0.0

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer how far fine-tuning on the edits moves its weight, (d_in, d_out); the model stays as it is.

        Raises:
            DivergedError: if the loss or a weight becomes infinite or not a number.
            UserError: if a layer takes no part in the answers, or they cannot end with the end of the sequence.
        """
        settings = self.settings
        if settings.end_of_sequence:
            edits = with_end(model, edits)
        nothing = {layer.name: torch.zeros(layer.shape, device=layer.weight.device) for layer in self.layers}
        tuned, reached, here = PostEditWeights(self.layers, nothing), set[str](), ranks()
        prefix = PrefixStates(model, self.layers)  # the same in every epoch
        mine = {edit.tokens for edit in shared(list({edit.tokens: edit for edit in edits}.values()))}
        with tuned.applied() as weights:
            optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
            steps = settings.epochs * -(-len(edits) // settings.batch_size)
            what = f"fine-tuning on {len(edits)} edits"
            minibatches = progress(self.minibatches(edits), steps, what, unit="steps", brief=True)
            in_epoch, losses, n_steps = steps // settings.epochs, Losses(), 0
            for step, minibatch in enumerate(minibatches, start=1):
                optimiser.zero_grad()
                loss = loss_of(model, prefix, [edit for edit in minibatch if edit.tokens in mine])
                (summed,) = here.sum_numbers(loss.item())
                if not math.isfinite(summed):
                    raise DivergedError(f"the loss of fine-tuning is not finite at step {step}")
                if losses.add(summed, len(minibatch)) >= settings.skip_loss:
                    if loss.requires_grad:
                        loss.backward()
                    reached |= sum_gradients(self.layers)
                    optimiser.step()
                    n_steps += 1
                if step % in_epoch == 0:
                    if losses.mean < settings.stop_loss or losses.largest < self.enough:
                        break
                    losses = Losses()
            optimiser.zero_grad()
        for layer in self.layers:
            if n_steps and layer.name not in reached:
                raise UserError(f"No answer depends on layer {layer.name}, so it cannot learn; choose others.")
        shifts = {}
        for layer, edited in zip(self.layers, tuned.edited, strict=True):
            precision = torch.promote_types(edited.dtype, torch.float32)
            shift = layer.orient(edited.to(precision) - layer.weight.data.to(precision))  # (d_in, d_out)
            shift = here.from_owner(shift, 0)  # Devices of several kinds may have rounded differently.
            if not shift.isfinite().all():
                raise DivergedError(f"fine-tuning made the weights of layer {layer.name} infinite")
            shifts[layer.name] = shift
        return shifts

    def minibatches(self, edits: Sequence[Example]) -> Iterator[list[Example]]:
        """Yield the edits in minibatches of ``settings.batch_size``, in another order in each epoch."""
        rng, size = random.Random(self.seed), self.settings.batch_size
        for _ in range(self.settings.epochs):
            order = rng.sample(list(edits), len(edits))
            for start in range(0, len(order), size):
                yield weighted(order[start : start + size], self.settings.loss)


def loss_of(model: LanguageModel, prefix: PrefixStates, edits: Sequence[Example]) -> Tensor:
    """Return the loss of a rank's edits of a minibatch, a scalar: 0 if it has none."""
    if not edits:
        return torch.zeros(())
    batch = model.collate(edits, range(len(edits)))
    with prefix.resuming(batch):
        return model.loss(batch)


def sum_gradients(layers: Sequence[EditedLayer]) -> set[str]:
    """Add up the gradients of all ranks, in place; return the names of the layers that have one on any rank."""
    here = ranks()
    counts = here.sum_numbers(*(layer.weight.grad is not None for layer in layers))
    reached = [layer for layer, count in zip(layers, counts, strict=True) if count]
    for layer in () if here.alone else reached:
        weight = layer.weight
        own = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad = here.sum(own.to(torch.promote_types(own.dtype, torch.float32))).to(own.dtype)
    return {layer.name for layer in reached}


class Losses:
    """The losses of an epoch's minibatches so far, each as it was before its step."""

    def __init__(self) -> None:
        self.each: list[float] = []
        self.sizes: list[int] = []

    def add(self, loss: float, n_edits: int) -> float:
        """Add the loss of a minibatch of ``n_edits``, and return it."""
        self.each.append(loss)
        self.sizes.append(n_edits)
        return loss

    @property
    def mean(self) -> float:
        """Return the mean over minibatches, each weighted by its number of edits."""
        total = math.fsum(loss * size for loss, size in zip(self.each, self.sizes, strict=True))
        return total / sum(self.sizes)

    @property
    def largest(self) -> float:
        """Return the largest loss of a minibatch."""
        return max(self.each)


def weighted(minibatch: Sequence[Example], loss: Loss) -> list[Example]:
    """Give the answer rows of each example of a minibatch their weights in its loss; they sum to 1."""
    if loss == "sequences":
        return [replace(example, weight=1 / (len(minibatch) * len(example.targets))) for example in minibatch]
    weight = 1 / sum(len(example.targets) for example in minibatch)
    return [replace(example, weight=weight) for example in minibatch]
