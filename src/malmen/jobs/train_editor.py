"""Training editors for groups of m edits."""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.base_outputs import BaseOutputs, LiveBaseOutputs
from malmen.editing.editor_file import TrainedFor, write_editor_file
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.moved import moved
from malmen.editing.rledit import RolloutTrainer
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups
from malmen.errors import DivergedError, UserError
from malmen.jobs.cache_base_outputs import read_cache
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PLAIN
from malmen.results.costs import Cost, CostsFile
from malmen.results.run import Run
from malmen.results.training import MetaLosses, TrainingFile
from malmen.runtime.checkpoint import NOTHING_SAVED, Checkpoint, Saving, State
from malmen.runtime.files import replacing_directory, sha256
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.progress import logger, progress
from malmen.runtime.ranks import ranks
from malmen.runtime.work_clock import seconds_of_all_ranks, work_seconds


def train_editors(
    spec: ModelSpec,
    settings: HyperNetworkEditorSettings,
    train: Path,
    runs: Sequence[Run],
    out: Path,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
    cache: Path | None = None,
) -> CostsFile:
    """Train a hyper-network editor for each run; return the costs.

    The folder of a run holds ``editor.safetensors`` and ``training.json``, a :class:`TrainingFile`. If a training
    fails, only the saved states remain, also those of finished trainings.

    Args:
        spec: the model.
        settings: the editor.
        train: file of the training tuples.
        runs: numbers of edits and seeds.
        out: the folder to write, with a folder for each run.
        machine: where to run.
        saving: where to keep the states of trainings during the job.
        cache: the folder from :func:`malmen.jobs.cache_base_outputs.write_cache`; None without a cache. A rollout takes
            nothing from it.

    Raises:
        UserError: if a run needs more tuples than the file has, or training diverges without ``may_diverge``.
    """
    model = spec.load(machine)
    tuples = read_enough(train, runs)
    layers = spec.layers(model, settings)
    base_outputs = read_cache(cache, spec, settings, model, layers) or LiveBaseOutputs(model, layers)
    identity = spec.identity()
    given: dict[str, Any] = {"model": identity, "editor": asdict(settings), "train": sha256(train)}
    given |= {"machine": machine.identity(), "cached": cache is not None}
    about: dict[str, Any] = {"model": spec.name, "weights": identity["weights"], "task": spec.task}
    about |= {"editor": settings.label, "dtype": spec.dtype}
    costs = []
    with replacing_directory(out) if ranks().first else nullcontext(out) as folder:
        for run in runs:
            what = spec.named(settings.label, run)
            checkpoint = saving.checkpoint(run.name, what, __name__, {**given, "run": asdict(run)})
            editor, training, cost = train_editor(model, layers, settings, tuples, run, checkpoint, base_outputs)
            costs.append(cost)
            if ranks().first:
                (folder / run.name).mkdir()
                form = None if model.form == PLAIN else model.form
                trained_for = TrainedFor(**about, **asdict(run), diverged=training.reason, form=form)
                write_editor_file(folder / run.name / "editor.safetensors", editor, trained_for)
                training.write(folder / run.name / "training.json")
    return CostsFile(tuple(costs))


class Training:
    """The training of one editor under way.

    Args:
        trainer: takes its steps.
        state: of the same training when it was interrupted, or None.

    Attributes:
        losses: of the steps taken.
        reason: why it diverged, or None.
        memory: measures its peak, that of its interrupted parts among them.
    """

    def __init__(self, trainer: MetaTrainer, state: State | None) -> None:
        self.trainer = trainer
        values = state.values if state else {"losses": [], "reason": None, "seconds": 0.0, "peak_bytes": 0}
        self.losses = [MetaLosses(**losses) for losses in values["losses"]]
        self.reason: str | None = values["reason"]
        self.memory = PeakMemory(trainer.model.device, values["peak_bytes"])
        self._before: float = values["seconds"]
        self._began = work_seconds(trainer.model.device)
        if state:
            trainer.restore(state.tensors)

    def cost(self) -> dict[str, float]:
        """Return the time since it began, without interruptions, and its peak memory; all ranks call it."""
        self.memory.update()
        device = self.trainer.model.device
        seconds = self._before + seconds_of_all_ranks(work_seconds(device) - self._began, device)
        return {"seconds": seconds, "peak_bytes": ranks().largest(self.memory.peak_bytes)}

    def state(self) -> State:
        """Return what it needs to go on; its place in the data follows from the number of losses."""
        values = {"losses": [asdict(losses) for losses in self.losses], "reason": self.reason, **self.cost()}
        return State(self.trainer.tensors(), values)

    def take_steps(self, groups: Iterable[EncodedGroup], step_taken: Callable[[], None]) -> None:
        """Take one step on each group, until they end or it diverges."""
        try:
            for group in groups:
                self.losses.append(self.trainer.step(group))
                step_taken()
        except DivergedError as error:
            self.reason = f"training diverged at step {len(self.losses) + 1}: {error}"


def train_editor(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    settings: HyperNetworkEditorSettings,
    tuples: Sequence[EditTuple],
    run: Run,
    checkpoint: Checkpoint,
    base_outputs: BaseOutputs,
) -> tuple[HyperNetworkEditor, TrainingFile, Cost]:
    """Train one editor, from where the checkpoint's state leaves off, if there is one.

    A training with a rollout does not use ``base_outputs``: they are the unedited model's.

    Raises:
        UserError: if training diverges where that is no result.
    """
    what = checkpoint.what
    editor = HyperNetworkEditor.create(layers, settings.hypernetwork, run.seed)
    trainer = (
        RolloutTrainer(model, editor, settings.training, run.n_edits)
        if settings.training.rollout
        else MetaTrainer(model, editor, settings.training, base_outputs=base_outputs)
    )
    training = Training(trainer, checkpoint.read())
    steps, before = settings.training.steps(len(tuples), run.n_edits), len(training.losses)
    again = trainer.remembered
    groups = draw_groups(model, tuples, run.n_edits, steps, random.Random(run.seed), before - again)
    trainer.recall(islice(groups, again))
    with training.memory, checkpoint.saving(training.state) as step_taken:
        if training.reason is None:
            training.take_steps(progress(groups, steps, what, before=before), step_taken)
    cost = Cost.model_validate({"run": run, **training.cost()})
    checkpoint.write(training.state())
    if training.reason and not settings.may_diverge:
        kept = f" (its last state is {checkpoint.path})" if checkpoint.path else ""
        raise UserError(f"{what}: {training.reason}; lower its learning rates{kept}.")
    if training.reason:
        logger.info("%s: %s", what, training.reason)
    status: Literal["ok", "diverged"] = "diverged" if training.reason else "ok"
    # The initial values are drawn again: during training a second copy of large networks would only take memory.
    initial = HyperNetworkEditor.create(layers, replace(settings.hypernetwork, device="cpu"), run.seed)
    distances = moved(initial.networks, editor.networks)
    record = TrainingFile(status=status, reason=training.reason, losses=tuple(training.losses), moved=distances)
    return editor, record, cost
