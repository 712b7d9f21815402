"""Training editors for groups of m edits."""

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malmen.data.tuples import EditTuple, read_tuples
from malmen.editing.editor import DivergedError, HyperNetworkEditor, TrainedFor
from malmen.editing.methods import edited_layers
from malmen.editing.training import MetaLosses, MetaTrainer, draw_groups
from malmen.errors import UserError
from malmen.files import replacing_directory
from malmen.models.identity import weights_digest
from malmen.models.language_model import LanguageModel
from malmen.monitoring import PeakMemory, logger, progress
from malmen.settings import EditorSettings, FfnPatterns
from malmen.steps.common import Cost, Machine, Run, Subject, write_json


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


def train_editors(
    subject: Subject, settings: EditorSettings, train: Path, runs: Sequence[Run], out: Path, machine: Machine
) -> list[Cost]:
    """Train a hyper-network editor for groups of m edits, with a seed; one editor for each run, in its own folder.

    Writes to each folder ``editor.safetensors`` and ``training.json`` (a :class:`TrainingRecord`); nothing at all if
    one of the trainings fails. Returns what the trainings cost, which is no part of the result.

    Raises:
        UserError: if there are fewer tuples than a group needs, or training diverges where that is no result.
    """
    model = subject.load(machine)
    tuples = read_tuples(train)
    largest = max(run.n_edits for run in runs)
    if largest > len(tuples):
        raise UserError(f"{largest} edits at once are more than the {len(tuples)} tuples of {train}; lower n_edits.")
    weights = weights_digest(subject.directory)
    costs = []
    with replacing_directory(out) as folder:
        for run in runs:
            what = f"{settings.label} on {subject.label}, m = {run.n_edits}, seed {run.seed}"
            editor, record, cost = train_editor(model, subject.ffn, settings, tuples, run, what)
            about = TrainedFor(
                subject.name, weights, subject.task, settings.label, run.n_edits, run.seed, record.reason
            )
            (folder / run.name).mkdir()
            editor.save(folder / run.name / "editor.safetensors", asdict(about))
            write_json(folder / run.name / "training.json", asdict(record))
            costs.append(cost)
    return costs


def train_editor(
    model: LanguageModel,
    ffn: FfnPatterns,
    settings: EditorSettings,
    tuples: Sequence[EditTuple],
    run: Run,
    what: str,
) -> tuple[HyperNetworkEditor, TrainingRecord, Cost]:
    """Train one editor; ``what`` names it in progress and messages.

    Raises:
        UserError: if training diverges where that is no result.
    """
    editor = HyperNetworkEditor.create(edited_layers(model.module, ffn, settings), settings.hypernetwork, run.seed)
    trainer = MetaTrainer(model, editor, settings.training)
    steps = settings.training.steps(len(tuples), run.n_edits)
    groups = draw_groups(model, tuples, run.n_edits, steps, random.Random(run.seed))
    losses: list[MetaLosses] = []
    reason = None
    start = time.perf_counter()
    with PeakMemory(model.device) as memory:
        try:
            for group in progress(groups, steps, what):
                losses.append(trainer.step(group))
        except DivergedError as error:
            reason = f"training diverged at step {len(losses) + 1}: {error}"
    seconds = time.perf_counter() - start
    if reason and not settings.may_diverge:
        raise UserError(f"{what}: {reason}; lower its learning rates.")
    if reason:
        logger.info("%s: %s", what, reason)
    record = TrainingRecord("diverged" if reason else "ok", reason, losses)
    return editor, record, Cost(run, seconds, memory.peak_bytes)
