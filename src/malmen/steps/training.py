"""Training an editor for groups of m edits."""

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from malmen.data.tuples import read_tuples
from malmen.editing.editor import DivergedError, HyperNetworkEditor, TrainedFor
from malmen.editing.methods import edited_layers
from malmen.editing.training import MetaLosses, MetaTrainer, draw_groups
from malmen.errors import UserError
from malmen.models.identity import weights_digest
from malmen.monitoring import PeakMemory, logger, progress
from malmen.settings import EditorSettings
from malmen.steps.common import Cost, Machine, Subject, write_json


@dataclass(frozen=True)
class TrainingRecord:
    """What training an editor came to; written beside it.

    Attributes:
        status: "ok", or "diverged" with a ``reason``.
        reason: why training stopped, or None.
        losses: of each meta-step taken.
    """

    status: str
    reason: str | None
    losses: list[MetaLosses]


def train_editor(
    subject: Subject, settings: EditorSettings, train: Path, n_edits: int, seed: int, out: Path, machine: Machine
) -> TrainingRecord:
    """Train a hyper-network editor for groups of m = ``n_edits``.

    Writes ``editor.safetensors``, ``training.json`` (a :class:`TrainingRecord`) and ``cost.json`` (a :class:`Cost`).

    Raises:
        UserError: if there are fewer tuples than a group needs, or training diverges where that is no result.
    """
    model = subject.load(machine)
    tuples = read_tuples(train)
    if n_edits > len(tuples):
        raise UserError(f"{n_edits} edits at once are more than the {len(tuples)} tuples of {train}; lower n_edits.")
    layers = edited_layers(model.module, subject.ffn, settings)
    editor = HyperNetworkEditor.create(layers, settings.hypernetwork, seed)
    trainer = MetaTrainer(model, editor, settings.training)
    steps = settings.training.steps(len(tuples), n_edits)
    groups = draw_groups(model, tuples, n_edits, steps, random.Random(seed))
    what = f"{settings.label} on {subject.label}, m = {n_edits}, seed {seed}"
    losses: list[MetaLosses] = []
    reason = None
    start = time.perf_counter()
    with PeakMemory(model.device) as memory:
        try:
            for group in progress(groups, steps, what):
                losses.append(trainer.step(group))
        except DivergedError as error:
            reason = f"training diverged at step {len(losses) + 1}: {error}"
    if reason and not settings.may_diverge:
        raise UserError(f"{what}: {reason}; lower its learning rates.")
    if reason:
        logger.info("%s: %s", what, reason)
    seconds = time.perf_counter() - start
    record = TrainingRecord("diverged" if reason else "ok", reason, losses)
    weights = weights_digest(subject.directory)
    about = TrainedFor(subject.name, weights, subject.task, settings.label, n_edits, seed, record.reason)
    editor.save(out / "editor.safetensors", asdict(about))
    write_json(out / "training.json", asdict(record))
    write_json(out / "cost.json", asdict(Cost(n_edits, seconds, memory.peak_bytes)))
    return record
