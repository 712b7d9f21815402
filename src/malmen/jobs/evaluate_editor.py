"""Measuring an editor on groups of m edits."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from malmen.config.settings import EditorSettings
from malmen.editing.editor import Editor
from malmen.editing.editors import make_editor
from malmen.editing.evaluation import Evaluation, GroupResult
from malmen.editing.layers import edited_layers
from malmen.errors import DivergedError, UserError
from malmen.jobs.cache_base_outputs import read_cache
from malmen.jobs.common import Cost, Machine, ModelSpec, Run, read_enough, write_json
from malmen.runtime.checkpoint import NOTHING_SAVED, Saving, State
from malmen.runtime.files import sha256
from malmen.runtime.progress import progress


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
    spec: ModelSpec,
    settings: EditorSettings,
    trained: Path | None,
    covariance: Path | None,
    reporting: Reporting,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
    cache: Path | None = None,
) -> tuple[list[dict[str, Any]], list[Cost]]:
    """Edit groups of each run and measure them; return the runs of a metrics file, and their costs.

    Args:
        spec: the model.
        settings: the editor.
        trained: the folder of the trained editors (:mod:`malmen.jobs.train_editors`); None if not trained.
        covariance: the file of the keys' covariance that MEMIT needs; None for other editors.
        reporting: on which tuples, and in groups of which sizes.
        machine: where to run.
        saving: where the measurements of finished runs are kept meanwhile.
        cache: the folder of what runs share (:func:`malmen.jobs.cache_base_outputs.write_cache`), if there is one.

    Raises:
        UserError: if a size is larger than the split, or an edit diverges where that is no result.
    """
    model = spec.load(machine)
    tuples = read_enough(reporting.tuples, reporting.runs)
    if reporting.max_groups:
        tuples = tuples[: max(run.n_edits for run in reporting.runs) * reporting.max_groups]
    layers = edited_layers(model.module, spec.ffn, settings)
    given = {
        "model": spec.identity(),
        "editor": asdict(settings),
        "files": [sha256(path) for path in inputs(trained, covariance, reporting)],
        "reporting": asdict(reporting),
        "machine": asdict(machine),
        "cached": cache is not None,
    }
    base_outputs = read_cache(cache, spec, settings, model, layers)
    checkpoint = saving.checkpoint("measured", f"{settings.label} on {spec.label}", __name__, given)
    done = Measured.restored(checkpoint.read())
    left = reporting.runs[len(done.runs) :]
    evaluations = {
        seed: Evaluation(model, tuples, settings.hypernetwork.batch_size, seed, base_outputs)
        for seed in {run.seed for run in left}
    }
    with checkpoint.saving(done.state) as group_done:
        for run in left:
            what = spec.named(settings.label, run)
            try:
                editor = make_editor(settings, layers, run.seed, trained / run.name if trained else covariance)
                groups = evaluations[run.seed].groups(run.n_edits, reporting.max_groups)
                for result in measure(editor, evaluations[run.seed], groups, what, len(done.groups)):
                    done.groups.append(result)
                    group_done()
            except DivergedError as error:
                if not settings.may_diverge:
                    raise UserError(f"{what}: {error}; set may_diverge if that is a result to report.") from None
                done.end_diverged(run, str(error))
            else:
                done.end(run)
    return done.runs, done.costs


def measure(
    editor: Editor, evaluation: Evaluation, groups: Sequence[slice], what: str, before: int
) -> Iterator[GroupResult]:
    """Yield what editing each group came to, without those measured ``before``; ``what`` names the run in progress."""
    for group in progress(groups[before:], len(groups), what, before=before):
        yield evaluation.run(editor, group)


def inputs(trained: Path | None, covariance: Path | None, reporting: Reporting) -> list[Path]:
    """Return the files, apart from the model's, on which measurements depend."""
    editors = [trained / run.name / "editor.safetensors" for run in reporting.runs] if trained else []
    return [path for path in (*editors, covariance, reporting.tuples) if path and path.is_file()]


@dataclass
class Measured:
    """What was measured so far.

    Attributes:
        runs: finished ones, as in a metrics file.
        costs: of those that did not diverge.
        groups: of the run under way.
    """

    runs: list[dict[str, Any]]
    costs: list[Cost]
    groups: list[GroupResult]

    @classmethod
    def restored(cls, state: State | None) -> "Measured":
        """Return what :meth:`state` described; nothing measured without a state."""
        if state is None:
            return cls([], [], [])
        costs = [Cost(**{**cost, "run": Run(**cost["run"])}) for cost in state.values["costs"]]
        return cls(state.values["runs"], costs, [GroupResult(**group) for group in state.values["groups"]])

    def state(self) -> State:
        """Return what is needed to go on."""
        return State(values=asdict(self))

    def end(self, run: Run) -> None:
        """Let the groups be those of a finished run."""
        metrics = [result.metrics for result in self.groups]
        self.runs.append({**asdict(run), "status": "ok", "reason": None, "groups": metrics})
        seconds = sum(result.seconds for result in self.groups) / len(self.groups)
        self.costs.append(Cost(run, seconds, max(result.peak_bytes for result in self.groups)))
        self.groups.clear()

    def end_diverged(self, run: Run, reason: str) -> None:
        """Let the run have diverged."""
        self.runs.append({**asdict(run), "status": "diverged", "reason": reason, "groups": []})
        self.groups.clear()


def write_metrics(path: Path, spec: ModelSpec, editor: tuple[str, str], runs: list[dict[str, Any]]) -> None:
    """Write a metrics file (read by :mod:`malmen.figures.metrics`); ``editor`` is its key and label."""
    about = {"model": spec.name, "model_label": spec.label, "dataset": spec.dataset}
    write_json(path, {**about, "editor": editor[0], "editor_label": editor[1], "runs": runs})
