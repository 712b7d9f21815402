"""Measuring an editor on groups of m edits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.data.tuples import read_tuples
from malmen.editing.editor import DivergedError
from malmen.editing.evaluation import Evaluation
from malmen.editing.methods import edited_layers, make_editor
from malmen.errors import UserError
from malmen.monitoring import progress
from malmen.settings import EditorSettings
from malmen.steps.common import Cost, Machine, Subject, write_json


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
    subject: Subject,
    settings: EditorSettings,
    trained: Sequence[Path],
    statistics: Path | None,
    reporting: Reporting,
    machine: Machine,
) -> tuple[list[dict[str, Any]], list[Cost]]:
    """Edit groups of each size and measure them; return the runs of a metrics file, and their costs.

    Args:
        subject: the model.
        settings: the editor.
        trained: for each size the folder of the trained editor; empty if the editor is not trained.
        statistics: the file of second moments that MEMIT needs; None for other editors.
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
    if reporting.max_groups:
        tuples = tuples[: largest * reporting.max_groups]
    layers = edited_layers(model.module, subject.ffn, settings)
    evaluation = Evaluation(model, tuples, settings.hypernetwork.batch_size, reporting.seed)
    runs: list[dict[str, Any]] = []
    costs: list[Cost] = []
    for position, m in enumerate(reporting.n_edits):
        try:
            folder = trained[position] if settings.trained else None
            editor = make_editor(settings, layers, reporting.seed, folder, statistics)
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


def write_metrics(path: Path, subject: Subject, editor: tuple[str, str], seed: int, runs: list[dict[str, Any]]) -> None:
    """Write a metrics file (read by :mod:`malmen.figures.metrics`); ``editor`` is its key and label."""
    about = {"model": subject.name, "model_label": subject.label, "dataset": subject.dataset}
    write_json(path, {**about, "editor": editor[0], "editor_label": editor[1], "seed": seed, "runs": runs})
