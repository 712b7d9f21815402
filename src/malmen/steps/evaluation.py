"""Measuring an editor on groups of m edits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from malmen.data.tuples import EditTuple, read_tuples
from malmen.editing.editor import DivergedError
from malmen.editing.evaluation import Evaluation
from malmen.editing.methods import edited_layers, make_editor
from malmen.errors import UserError
from malmen.monitoring import progress
from malmen.settings import EditorSettings
from malmen.steps.common import Cost, Machine, Run, Subject, write_json


@dataclass(frozen=True)
class Reporting:
    """What is reported of an editor.

    Attributes:
        tuples: the split to report on.
        runs: sizes of groups and seeds; a seed is that of the draw of equivalent prompts, and of an editor's own draws.
        max_groups: measure so many groups in each run at most; all whole ones if None.
    """

    tuples: Path
    runs: Sequence[Run]
    max_groups: int | None


def evaluate_editor(
    subject: Subject,
    settings: EditorSettings,
    trained: Path | None,
    statistics: Path | None,
    reporting: Reporting,
    machine: Machine,
) -> tuple[list[dict[str, Any]], list[Cost]]:
    """Edit groups of each run and measure them; return the runs of a metrics file, and their costs.

    Args:
        subject: the model.
        settings: the editor.
        trained: the folder of the trained editors (:func:`malmen.steps.training.train_editors`), None if not trained.
        statistics: the file of second moments that MEMIT needs; None for other editors.
        reporting: on which tuples, and in groups of which sizes.
        machine: where to run.

    Raises:
        UserError: if a size is larger than the split.
    """
    model = subject.load(machine)
    largest = max(run.n_edits for run in reporting.runs)
    tuples = read_enough(reporting.tuples, largest)
    if reporting.max_groups:
        tuples = tuples[: largest * reporting.max_groups]
    layers = edited_layers(model.module, subject.ffn, settings)
    seeds = {run.seed for run in reporting.runs}
    evaluations = {seed: Evaluation(model, tuples, settings.hypernetwork.batch_size, seed) for seed in seeds}
    measured: list[dict[str, Any]] = []
    costs: list[Cost] = []
    for run in reporting.runs:
        what = f"{settings.label} on {subject.label}, m = {run.n_edits}, seed {run.seed}"
        try:
            editor = make_editor(settings, layers, run.seed, trained / run.name if trained else None, statistics)
            groups = evaluations[run.seed].groups(run.n_edits, reporting.max_groups)
            results = [evaluations[run.seed].run(editor, group) for group in progress(groups, len(groups), what)]
        except DivergedError as error:
            measured.append({**asdict(run), "status": "diverged", "reason": str(error), "groups": []})
        else:
            metrics = [result.metrics for result in results]
            measured.append({**asdict(run), "status": "ok", "reason": None, "groups": metrics})
            seconds = sum(result.seconds for result in results) / len(results)
            costs.append(Cost(run, seconds, max(result.peak_bytes for result in results)))
    return measured, costs


def read_enough(path: Path, n_edits: int) -> list[EditTuple]:
    """Read the tuples of a split.

    Raises:
        UserError: if they are fewer than ``n_edits``.
    """
    tuples = read_tuples(path)
    if n_edits > len(tuples):
        raise UserError(f"{n_edits} edits at once are more than the {len(tuples)} of {path}; lower n_edits.")
    return tuples


def write_metrics(path: Path, subject: Subject, editor: tuple[str, str], runs: list[dict[str, Any]]) -> None:
    """Write a metrics file (read by :mod:`malmen.figures.metrics`); ``editor`` is its key and label."""
    about = {"model": subject.name, "model_label": subject.label, "dataset": subject.dataset}
    write_json(path, {**about, "editor": editor[0], "editor_label": editor[1], "runs": runs})
