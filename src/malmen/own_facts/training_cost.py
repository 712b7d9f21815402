"""What a training will cost, measured by a small step before it begins."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer, encode_group
from malmen.errors import DivergedError
from malmen.models.language_model import LanguageModel
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.progress import clock

EDITS = 8
"""Edits of the small step."""


@dataclass(frozen=True)
class TrainingCost:
    """What a training will cost.

    Attributes:
        step_seconds: time of a meta-step.
        peak_bytes: largest memory of this process, or of a GPU's allocator.
    """

    step_seconds: float
    peak_bytes: int

    def expected(self, what: str, steps: int) -> str:
        """Say in a sentence what a training of so many steps will take at most."""
        return (
            f"{what}: {steps} meta-steps, at most about {clock(steps * self.step_seconds)}, and about "
            f"{self.peak_bytes / 1e9:.1f} GB of memory"
        )


def probe(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    settings: HyperNetworkEditorSettings,
    tuples: Sequence[EditTuple],
    n_edits: int,
    seed: int,
) -> TrainingCost:
    """Return what a training will cost, from two steps of a few edits with an editor that is thrown away.

    Memory does not grow with m, and the time of a step is proportional to it. The second step counts: in the first one
    libraries get ready.
    """
    editor = HyperNetworkEditor.create(layers, settings.hypernetwork, seed)
    trainer = MetaTrainer(model, editor, settings.training)
    group = encode_group(model, tuples[: min(EDITS, n_edits)], random.Random(seed))
    seconds = 0.0
    with PeakMemory(model.device) as memory:
        for _ in range(2):
            began = time.perf_counter()
            try:
                trainer.step(group)
            except DivergedError:  # the training will say so
                break
            seconds = time.perf_counter() - began
    return TrainingCost(seconds * n_edits / len(group.edit), memory.peak_bytes)
