"""Measuring an editor on groups of m edits."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.editor import Editor
from malmen.editing.evaluation import Evaluation, GroupResult
from malmen.errors import DivergedError, UserError
from malmen.jobs.cache_base_outputs import read_cache
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.jobs.editor_spec import EditorSpec
from malmen.results.costs import Cost, CostsFile
from malmen.results.metrics import GroupMetrics, MetricsFile, RunMetrics
from malmen.results.run import Run
from malmen.runtime.checkpoint import NOTHING_SAVED, Saving, State
from malmen.runtime.files import sha256
from malmen.runtime.progress import progress


def evaluate_editor(
    spec: ModelSpec,
    editor: EditorSpec,
    tuples: Path,
    runs: Sequence[Run],
    max_groups: int | None,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
    cache: Path | None = None,
) -> tuple[MetricsFile, CostsFile]:
    """Edit the groups of each run into the model and measure them.

    Args:
        spec: the model.
        editor: the editor.
        tuples: the split to report on.
        runs: numbers of edits and seeds; a seed is that of the draw of equivalent prompts, and of the editor's draws.
        max_groups: the largest number of groups measured in each run; None for all whole groups.
        machine: where to run.
        saving: where the measurements of finished groups are kept meanwhile.
        cache: the folder that :func:`malmen.jobs.cache_base_outputs.write_cache` wrote, if there is one.

    Raises:
        UserError: if a run needs more tuples than there are, or an edit diverges where that is no result.
    """
    model, settings = spec.load(machine), editor.settings
    layers = spec.layers(model, settings)
    base_outputs = None
    if isinstance(settings, HyperNetworkEditorSettings):
        base_outputs = read_cache(cache, spec, settings, model, layers)
    given: dict[str, Any] = {"machine": asdict(machine), "max_groups": max_groups, "cached": cache is not None}
    given |= {"model": spec.identity(), "editor": editor.identity(runs), "tuples": sha256(tuples)}
    what = f"{settings.label} on {spec.label}"
    checkpoint = saving.checkpoint("measured", what, __name__, given | {"runs": [asdict(run) for run in runs]})
    done = Measurements.restored(checkpoint.read())
    left = runs[len(done.runs) :]
    reported = reported_tuples(tuples, runs, max_groups)
    seeds = {run.seed for run in left}
    evaluations = {seed: Evaluation(model, reported, settings.batch_size, seed, base_outputs) for seed in seeds}
    with checkpoint.saving(done.state) as group_done:
        for run in left:
            what, evaluation = spec.named(settings.label, run), evaluations[run.seed]
            groups = evaluation.groups(run.n_edits, max_groups)
            try:
                for result in measure(editor.make(layers, run), evaluation, groups, what, len(done.groups)):
                    done.groups.append(result)
                    group_done()
                done.end(run)
            except DivergedError as error:
                if not settings.may_diverge:
                    raise UserError(f"{what}: {error}; set may_diverge if that is a result to report.") from None
                done.end_diverged(run, str(error))
    return done.metrics_file(spec, editor), CostsFile(tuple(done.costs))


def measure(
    editor: Editor, evaluation: Evaluation, groups: Sequence[slice], what: str, before: int = 0
) -> Iterator[GroupResult]:
    """Edit and measure each group but those measured ``before``; ``what`` names the work in the log."""
    for group in progress(groups[before:], len(groups), what, before=before):
        yield evaluation.run(editor, group)


def reported_tuples(path: Path, runs: Sequence[Run], max_groups: int | None) -> list[EditTuple]:
    """Return the tuples of a split that at least one run measures."""
    tuples = read_enough(path, runs)
    return tuples[: max(run.n_edits for run in runs) * max_groups] if max_groups else tuples


class Measurements(BaseModel):
    """What was measured so far.

    Attributes:
        runs: the finished runs.
        costs: of those that did not diverge.
        groups: of the run under way.
    """

    runs: list[RunMetrics]
    costs: list[Cost]
    groups: list[GroupResult]

    @classmethod
    def restored(cls, state: State | None) -> "Measurements":
        """Return what :meth:`state` described; nothing measured without a state."""
        return cls.model_validate(state.values) if state else cls(runs=[], costs=[], groups=[])

    def state(self) -> State:
        """Return what is needed to go on."""
        return State(values=self.model_dump(exclude_unset=True))

    def end(self, run: Run) -> None:
        """Turn the groups into those of a finished run."""
        groups = tuple(GroupMetrics.model_validate(group.metrics) for group in self.groups)
        self.runs.append(RunMetrics(**asdict(run), status="ok", reason=None, groups=groups))
        seconds = sum(group.seconds for group in self.groups) / len(self.groups)
        self.costs.append(Cost(run=run, seconds=seconds, peak_bytes=max(group.peak_bytes for group in self.groups)))
        self.groups.clear()

    def end_diverged(self, run: Run, reason: str) -> None:
        """Drop the groups, and note that the run diverged."""
        self.runs.append(RunMetrics(**asdict(run), status="diverged", reason=reason, groups=()))
        self.groups.clear()

    def metrics_file(self, spec: ModelSpec, editor: EditorSpec) -> MetricsFile:
        """Return the finished runs as a metrics file."""
        return MetricsFile(
            model=spec.name,
            model_label=spec.label,
            dataset=spec.dataset,
            editor=editor.name,
            editor_label=editor.settings.label,
            runs=tuple(self.runs),
        )
