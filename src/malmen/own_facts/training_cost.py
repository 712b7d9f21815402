"""What a training will cost, measured by a small step before it begins."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import EncodedGroup, MetaTrainer, encode_group
from malmen.errors import DivergedError
from malmen.models.language_model import LanguageModel
from malmen.own_facts.timing import seconds_of
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.progress import clock
from malmen.runtime.ranks import ranks

EDITS = 8, 64
"""Edits of the small steps; the larger one fills a batch of sequences, as a whole step does, and needs its memory."""


@dataclass(frozen=True)
class TrainingCost:
    """What a training will cost.

    Attributes:
        step_seconds: time of a meta-step.
        peak_bytes: largest memory of a process, or of a GPU's allocator.
    """

    step_seconds: float
    peak_bytes: int

    def expected(self, what: str, steps: int) -> str:
        """Say in a sentence what a training of so many steps will take at most."""
        each = "" if ranks().alone else f" in each of {ranks().size} processes"
        return (
            f"{what}: {steps} meta-steps, at most about {clock(steps * self.step_seconds)}, and about "
            f"{self.peak_bytes / 1e9:.1f} GB of memory{each}"
        )


def probe(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    settings: HyperNetworkEditorSettings,
    tuples: Sequence[EditTuple],
    n_edits: int,
    seed: int,
) -> TrainingCost:
    """Return what a training will cost, from three small steps with an editor that is thrown away.

    Memory does not grow with m. The time of a step is that of the hyper-network, which is the same for every m, and
    that of the language model, which is proportional to m: steps of two sizes tell both. In the first step libraries
    get ready, so it does not count. A step of a rollout takes as many times as long, at most, as it looks at groups.
    Of several ranks, each takes its share of steps that are larger by their number.
    """
    editor = HyperNetworkEditor.create(layers, settings.hypernetwork, seed)
    trainer = MetaTrainer(model, editor, settings.training)
    small, large = (encode_group(model, tuples[: min(n * ranks().size, n_edits)], random.Random(seed)) for n in EDITS)
    with PeakMemory(model.device) as memory:
        _, first, second = (
            seconds_of(model.device, partial(take_step, trainer, group)) for group in (small, small, large)
        )
    more = len(large.edit) - len(small.edit)
    each = max(0.0, (second - first) / more) if more else second / len(large.edit)
    seconds = settings.training.groups_per_step(n_edits) * (second + each * (n_edits - len(large.edit)))
    return TrainingCost(seconds, ranks().largest(memory.peak_bytes))


def take_step(trainer: MetaTrainer, group: EncodedGroup) -> None:
    """Take a step, or stop in it where it diverges: the training will say so."""
    with suppress(DivergedError):
        trainer.step(group)
