"""RLEdit: MALMEN's hyper-network, trained while the model is being edited (ICML 2025, arXiv:2502.05759).

MALMEN trains on the unedited model: every step undoes its edits. RLEdit rolls out a sequence of T rounds of m edits and
keeps them. Round t starts from the weights W_{t-1}, which all rounds before it made:

    K_t, G_t  =  keys and value gradients of the round's edits, on W_{t-1}         (editing/capture.py)
    S_t       =  MALMEN's shift for them, (d_in, d_out);  W_t = W_{t-1} + S_t      (editing/malmen.py)
    L_edit    =  sum_i mu^i NLL of the equivalent tuples of round t - i, at W_t
    L_loc     =  sum_i mu^i KL(p at W_{t-1} || p at W_t) on the unrelated tuples of round t - i
    L_t       =  L_edit + lambda_loc L_loc + eta_reg sum over layers of ||S_t||_F^2

with i from 0 to min(t, k) - 1. The gradient of L_t goes into the hyper-network through S_t alone: W_{t-1} is a
constant. So each round is one separated meta-gradient (Algorithm 2 of MALMEN) on another model and with more tuples.
The gradients of rounds add up, and their sum is clipped after every round. Adam takes a step after as many rounds as
the settings say. After T rounds the original weights come back.

Where this differs from the public code:

- Its locality loss is back-propagated after the weights went back to W_{t-1}, so that the gradient to earlier edited
  layers passes through wrong weights of later ones. Here it passes through W_t.
- It keeps the graphs of all batches of all k rounds until one backward pass. Here each batch is back-propagated at
  once, which gives the same gradient.
- It adds shifts to the weights in place, in bfloat16, and subtracts them again, so that the weights drift. Here the sum
  of the shifts is kept in float32, and W_t is that sum added to the original weights.
- The norm of its shifts has no gradient. Here ``l2_gradient`` gives it one: 2 eta_reg S_t.
- Its losses are means over 4 sequences, here over virtual batches of 32 as in all editors. Both are summed, so beside
  the other losses the norm of the shifts weighs more here.
- It draws a sequence without a seed. Here groups are drawn as in MALMEN's training: a pass over the tuples may end
  within a sequence, and the next pass then goes on in it.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from malmen.config.hypernetwork import TrainingSettings
from malmen.data.tuples import Triple
from malmen.editing.layers import PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import EncodedGroup, MetaTrainer, shift_gradients, update_normalisers
from malmen.errors import DivergedError
from malmen.models.language_model import Example, LanguageModel
from malmen.results.training import MetaLosses
from malmen.runtime.ranks import ranks


class RolloutTrainer(MetaTrainer):
    """Trains an editor in rounds, each on the model that the rounds before it edited.

    One :meth:`step` is a round; it may or may not end in a step of Adam. Between rounds the model is unedited.

    Args:
        model: the language model, unedited.
        editor: what is trained.
        settings: how it is trained, with a rollout.
        n_edits: m, the number of edits of a round.

    Attributes:
        rollout: the settings of the rollout.
        n_rounds: T, the number of rounds of a sequence.
        rounds: number of rounds taken, of all sequences.
        totals: by layer the sum of the shifts of this sequence, (d_in, d_out), in float32 (or 64).
        groups: those of the last k rounds of this sequence, the latest first.
    """

    def __init__(
        self, model: LanguageModel, editor: HyperNetworkEditor, settings: TrainingSettings, n_edits: int
    ) -> None:
        # Nothing cached will do: the model changes with every round.
        super().__init__(model, editor, settings)
        assert settings.rollout
        self.rollout, self.n_rounds = settings.rollout, settings.rollout.rounds(n_edits)
        self.rounds = 0
        self.totals = self.nothing()
        self.groups: deque[EncodedGroup] = deque(maxlen=self.rollout.back_depth)

    def nothing(self) -> dict[str, Tensor]:
        """Return by layer the sum of no shifts, (d_in, d_out)."""
        precision = next(self.editor.networks.parameters()).dtype
        return {
            layer.name: torch.zeros(layer.shape, dtype=precision, device=self.editor.device)
            for layer in self.editor.layers
        }

    @property
    def in_sequence(self) -> int:
        """Number of rounds taken of the sequence under way."""
        return self.rounds % self.n_rounds

    @property
    def accumulating(self) -> bool:
        """Whether the parameters' ``grad`` holds rounds that are not yet part of a step of Adam."""
        return self.in_sequence > 0 and not self.rollout.ends_step(self.in_sequence, self.n_rounds)

    def step(self, group: EncodedGroup) -> MetaLosses:
        """Take a round on a group; after some rounds, as the settings say, take a step of Adam.

        Raises:
            DivergedError: if a loss, shift or gradient is not finite or a system is singular; names the round. The
                round then leaves no edits, and no step is taken.
        """
        if not self.accumulating:
            self.optimiser.zero_grad()
        try:
            losses, totals = self.take_round(group.map(self.editor.weighted))
        except DivergedError as error:
            sequence = self.rounds // self.n_rounds + 1
            raise DivergedError(f"in round {self.in_sequence + 1} of sequence {sequence}, {error}") from None
        if self.rollout.ends_step(self.in_sequence + 1, self.n_rounds):
            self.optimiser.step()
        self.rounds, self.totals = self.rounds + 1, totals
        if self.in_sequence == 0:
            self.totals = self.nothing()
            self.groups.clear()
        return losses

    def take_round(self, group: EncodedGroup) -> tuple[MetaLosses, dict[str, Tensor]]:
        """Add a round's gradient to the parameters' ``grad``, and clip the sum.

        Returns:
            The losses, and by layer the sum of the shifts with this round's, (d_in, d_out).
        """
        self.groups.appendleft(group)
        layers, seen = self.editor.layers, decayed(self.groups, self.rollout.time_decay)
        before = PostEditWeights(layers, self.totals)  # W_{t-1}
        with before.applied():
            captured = self.base_outputs.capture(self.editor, group.edit)
        update_normalisers(self.editor, captured)
        solved = self.editor.solve(captured, for_backward=True)
        totals = {name: self.totals[name] + solution.shift for name, solution in solved.items()}
        after = PostEditWeights(layers, totals)  # W_t
        with before.applied():
            gradients, generalisation, locality = shift_gradients(
                self.model, self.editor, solved, seen, self.settings.locality_coefficient, self.base_outputs, after
            )
        if self.rollout.l2_gradient and ranks().first:  # once in the sum over ranks
            for name, solution in solved.items():
                gradients.add_known(name, 2 * self.rollout.l2 * solution.shift)
        self.editor.backward(captured, solved, gradients.sums)
        return self.clip(seen.edit, generalisation, locality), totals

    # What an interrupted training needs.

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all that rounds change; beside MetaTrainer's the number of rounds, gradients and sums.

        The last groups are not among them: they are drawn again (:meth:`recall`).
        """
        kept = super().tensors() | {"rounds": torch.tensor(self.rounds)}
        if self.in_sequence:
            kept |= {f"total.{name}": total.clone() for name, total in self.totals.items()}
        if self.accumulating:
            named = self.editor.networks.named_parameters()
            kept |= {f"gradient.{name}": one.grad.clone() for name, one in named if one.grad is not None}
        return kept

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned; :meth:`recall` must follow."""
        super().restore(tensors)
        self.rounds = int(tensors["rounds"])
        self.groups.clear()
        for name, total in self.nothing().items():
            self.totals[name] = total.copy_(tensors[f"total.{name}"]) if self.in_sequence else total
        for name, parameter in self.editor.networks.named_parameters():
            gradient = tensors.get(f"gradient.{name}")
            parameter.grad = None if gradient is None else torch.zeros_like(parameter).copy_(gradient)

    @property
    def remembered(self) -> int:
        """How many of the last groups the next round needs beside its own: up to k - 1 of the same sequence."""
        return min(self.in_sequence, self.rollout.back_depth - 1)

    def recall(self, groups: Iterable[EncodedGroup]) -> None:
        """After :meth:`restore`, take the last :attr:`remembered` groups once more, the earliest first."""
        for group in groups:
            self.groups.appendleft(group.map(self.editor.weighted))


def decayed(groups: Sequence[EncodedGroup], time_decay: float) -> EncodedGroup:
    """Return all tuples of some groups, the latest first, with the weights of those of i rounds ago times mu^i."""

    def all_of(kinds: Iterable[Sequence[Example]]) -> list[Example]:
        return [
            replace(example, weight=time_decay**age * example.weight)
            for age, examples in enumerate(kinds)
            for example in examples
        ]

    return Triple(
        edit=all_of(group.edit for group in groups),
        equivalent=all_of(group.equivalent for group in groups),
        unrelated=all_of(group.unrelated for group in groups),
    )
