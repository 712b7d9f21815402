"""Editing by fine-tuning some FFN weights on the edits (FT; appendix A.5): a few epochs of AdamW."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.finetuning import FineTuningSettings
from malmen.editing.blocks import PrefixStates
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import VIRTUAL_BATCH, Example, LanguageModel, with_loss_weights
from malmen.runtime.progress import progress


@dataclass(frozen=True)
class FineTuningEditor:
    """Tunes the weights of ``layers`` on the edits, from the original weights each time.

    Attributes:
        layers: the tuned layers.
        settings: how they are tuned.
        seed: of the order in which edits are seen.
        enough: tuning ends early, after an epoch in which the loss of every minibatch was below this; the paper's FT
            always makes all epochs.
    """

    layers: Sequence[EditedLayer]
    settings: FineTuningSettings
    seed: int
    enough: float = 0.0

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer how far fine-tuning on the edits moves its weight, (d_in, d_out); the model stays as it is.

        Raises:
            DivergedError: if the loss or a weight becomes infinite or not a number.
            UserError: if a layer takes no part in the answers.
        """
        nothing = {layer.name: torch.zeros(layer.shape, device=layer.weight.device) for layer in self.layers}
        tuned, reached = PostEditWeights(self.layers, nothing), set[str]()
        prefix = PrefixStates(model, self.layers)  # the same in every epoch
        with tuned.applied() as weights:
            optimiser = torch.optim.AdamW(
                weights, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
            )
            steps = self.settings.epochs * -(-len(edits) // VIRTUAL_BATCH)
            what = f"fine-tuning on {len(edits)} edits"
            minibatches = progress(self.minibatches(edits), steps, what, unit="steps", brief=True)
            in_epoch, losses = steps // self.settings.epochs, list[float]()
            for step, minibatch in enumerate(minibatches, start=1):
                optimiser.zero_grad()
                batch = model.collate(minibatch, range(len(minibatch)))
                with prefix.resuming(batch):
                    loss = model.loss(batch)
                if not loss.isfinite():
                    raise DivergedError(f"the loss of fine-tuning is not finite at step {step}")
                if loss.requires_grad:
                    loss.backward()
                reached |= {layer.name for layer in self.layers if layer.weight.grad is not None}
                optimiser.step()
                losses.append(loss.item())
                if step % in_epoch == 0 and max(losses[-in_epoch:]) < self.enough:
                    break
            optimiser.zero_grad()
        for layer in self.layers:
            if layer.name not in reached:
                raise UserError(f"No answer depends on layer {layer.name}, so it cannot learn; choose others.")
        shifts = {}
        for layer, edited in zip(self.layers, tuned.edited, strict=True):
            precision = torch.promote_types(edited.dtype, torch.float32)
            shift = layer.orient(edited.to(precision) - layer.weight.data.to(precision))  # (d_in, d_out)
            if not shift.isfinite().all():
                raise DivergedError(f"fine-tuning made the weights of layer {layer.name} infinite")
            shifts[layer.name] = shift
        return shifts

    def minibatches(self, edits: Sequence[Example]) -> Iterator[list[Example]]:
        """Yield the edits in minibatches of 32, in another order in each epoch."""
        rng = random.Random(self.seed)
        for _ in range(self.settings.epochs):
            order = rng.sample(list(edits), len(edits))
            for start in range(0, len(order), VIRTUAL_BATCH):
                yield with_loss_weights(order[start : start + VIRTUAL_BATCH])
