"""The steps of the workflow that run a language model: each reads files, calls the editing code, and writes files.

They need neither Snakemake nor the configuration's machinery, so that they run wherever torch and transformers do.
"""

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from malmen.data.tuples import read_pairs, read_tuples
from malmen.editing.editor import DivergedError, Editor, HyperNetworkEditor
from malmen.editing.evaluation import Evaluation
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer
from malmen.editing.methods import edited_layers
from malmen.editing.training import MetaLosses, MetaTrainer, draw_groups
from malmen.errors import UserError
from malmen.files import replacing_directory, write_text
from malmen.models import zoo
from malmen.models.language_model import LanguageModel
from malmen.models.pretraining import pretrain, teach
from malmen.monitoring import PeakMemory, logger, progress
from malmen.settings import Dtype, EditorSettings, FfnPatterns, OptimisationSettings, ScratchSettings, TaskName


@dataclass(frozen=True)
class Machine:
    """Where a step runs.

    Attributes:
        device: "cpu" or "cuda".
        threads: CPU threads; part of the result, since sums are split by them.
    """

    device: str = "cpu"
    threads: int = 1

    def set_up(self) -> None:
        """Make torch deterministic on this device.

        Raises:
            UserError: if there is no such device.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("The configuration asks for device 'cuda', but torch finds no GPU; set device: cpu.")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True)


@dataclass(frozen=True)
class Subject:
    """The model to be edited, as files and settings.

    Attributes:
        name: its key in the configuration.
        label: its name in figures.
        dataset: "fever" or "zsre".
        task: how it answers.
        dtype: precision of its weights.
        directory: where it lies.
        ffn: names of its FFN layers, as regular expressions.
    """

    name: str
    label: str
    dataset: str
    task: TaskName
    dtype: Dtype
    directory: Path
    ffn: FfnPatterns

    def load(self, machine: Machine) -> LanguageModel:
        """Load the model onto the machine's device."""
        machine.set_up()
        return zoo.load(self.directory, self.task, self.dtype, machine.device)


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


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost. Kept apart from results, which are the same bytes in every run.

    Attributes:
        n_edits: number of edits m.
        seconds: time, without loading; of one group of edits, or of a whole training.
        peak_bytes: peak memory of the process (CPU) or of the allocator (GPU).
    """

    n_edits: int
    seconds: float
    peak_bytes: int


def pretrain_model(
    text: Path, shape: ScratchSettings, settings: OptimisationSettings, seed: int, out: Path, machine: Machine
) -> None:
    """Train a tiny model and its tokenizer on lines of text; write an ordinary Hugging Face directory."""
    machine.set_up()
    module, tokenizer = pretrain(text.read_text(encoding="utf-8").split("\n")[:-1], shape, settings, seed)
    with replacing_directory(out) as folder:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def teach_model(
    subject: Subject, taught: Path, settings: OptimisationSettings, seed: int, out: Path, machine: Machine
) -> None:
    """Fine-tune a model on what it is to know before it is edited; write an ordinary Hugging Face directory."""
    model = subject.load(machine)
    share = teach(model, read_pairs(taught), settings, seed)
    logger.info("%s answers %.1f %% of what it was taught", subject.label, 100 * share)
    with replacing_directory(out) as folder:
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


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
    seconds = time.perf_counter() - start
    record = TrainingRecord("diverged" if reason else "ok", reason, losses)
    editor.save(out / "editor.safetensors", {"model": subject.name, "n_edits": n_edits, "seed": seed})
    write_json(out / "training.json", asdict(record))
    write_json(out / "cost.json", asdict(Cost(n_edits, seconds, memory.peak_bytes)))
    return record


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, one number a line, so that versions can be compared."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@dataclass(frozen=True)
class Reporting:
    """What is reported of an editor.

    Attributes:
        tuples: the split to report on.
        n_edits: sizes of groups.
        max_groups: measure so many groups of each size at most; all whole ones if None.
        seed: of the draw of equivalent prompts, and of an editor's own draws.
    """

    tuples: Path
    n_edits: Sequence[int]
    max_groups: int | None
    seed: int


def evaluate_editor(
    subject: Subject, settings: EditorSettings, trained: Sequence[Path], reporting: Reporting, machine: Machine
) -> tuple[list[dict[str, Any]], list[Cost]]:
    """Edit groups of each size and measure them; return the runs of a metrics file, and their costs.

    Args:
        subject: the model.
        settings: the editor.
        trained: for each size the folder of the trained editor; empty if the editor is not trained.
        reporting: on which tuples, and in groups of which sizes.
        machine: where to run.

    Raises:
        UserError: if a size is larger than the split.
    """
    model = subject.load(machine)
    tuples = read_tuples(reporting.tuples)
    largest = max(reporting.n_edits)
    if largest > len(tuples):
        raise UserError(
            f"{largest} edits at once are more than the {len(tuples)} of {reporting.tuples}; lower n_edits."
        )
    layers = edited_layers(model.module, subject.ffn, settings)
    evaluation = Evaluation(model, tuples, settings.hypernetwork.batch_size, reporting.seed)
    runs: list[dict[str, Any]] = []
    costs: list[Cost] = []
    for position, m in enumerate(reporting.n_edits):
        try:
            editor: Editor = FineTuningEditor(layers, settings.finetuning, reporting.seed)
            if settings.trained:
                editor = load_trained(trained[position], layers)
            groups = evaluation.groups(m, reporting.max_groups)
            what = f"{settings.label} on {subject.label}, m = {m}, seed {reporting.seed}"
            results = [evaluation.run(editor, group) for group in progress(groups, len(groups), what)]
        except DivergedError as error:
            runs.append({"n_edits": m, "status": "diverged", "reason": str(error), "groups": []})
        else:
            metrics = [result.metrics for result in results]
            runs.append({"n_edits": m, "status": "ok", "reason": None, "groups": metrics})
            seconds = sum(result.seconds for result in results) / len(results)
            costs.append(Cost(m, seconds, max(result.peak_bytes for result in results)))
    return runs, costs


def load_trained(folder: Path, layers: Sequence[EditedLayer]) -> HyperNetworkEditor:
    """Load what :func:`train_editor` wrote.

    Raises:
        DivergedError: if the training diverged.
    """
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if record["status"] == "diverged":
        raise DivergedError(record["reason"])
    return HyperNetworkEditor.load(folder / "editor.safetensors", layers)[0]


def write_metrics(path: Path, subject: Subject, editor: tuple[str, str], seed: int, runs: list[dict[str, Any]]) -> None:
    """Write a metrics file (read by :mod:`malmen.figures.metrics`); ``editor`` is its key and label."""
    about = {"model": subject.name, "model_label": subject.label, "dataset": subject.dataset}
    write_json(path, {**about, "editor": editor[0], "editor_label": editor[1], "seed": seed, "runs": runs})
