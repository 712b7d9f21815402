"""Measuring an editor on groups of m edits, and keeping some of its answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from malmen.editing.editor import Editor, Remembering
from malmen.editing.evaluation import Evaluation, GroupResult
from malmen.errors import DivergedError, UserError
from malmen.jobs.answers import answers, asked
from malmen.jobs.cache_base_outputs import read_cache
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.jobs.editor_spec import EditorSpec
from malmen.results.answers import AnsweredRun, Answers, AnswersFile, Asked, AskedTuple
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
    max_groups: Mapping[int, int | None],
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
    cache: Path | None = None,
    n_answers: int = 0,
) -> tuple[MetricsFile, CostsFile, AnswersFile]:
    """Edit the groups of each run into the model and measure them.

    Args:
        spec: the model.
        editor: the editor.
        tuples: the split to report on.
        runs: numbers of edits and seeds; a seed determines the equivalent prompts and the editor's random draws.
        max_groups: the largest number of groups of m edits, by m; all whole groups of an m that is not in it or None.
        machine: where to run.
        saving: where to keep the measurements of finished groups during the job.
        cache: the folder from :func:`malmen.jobs.cache_base_outputs.write_cache`; None without a cache.
        n_answers: of how many tuples, the first of the split, the answers are returned as text.

    Raises:
        UserError: if a run needs more tuples than the split has, or an edit diverges without ``may_diverge``.
    """
    model, settings = spec.load(machine), editor.settings
    layers = spec.layers(model, settings)
    base_outputs = read_cache(cache, spec, settings, model, layers)
    given: dict[str, Any] = {"machine": machine.identity(), "max_groups": max_groups, "cached": cache is not None}
    given |= {"n_answers": n_answers}
    given |= {"model": spec.identity(), "editor": editor.identity(runs), "tuples": sha256(tuples)}
    what = f"{settings.label} on {spec.label}"
    checkpoint = saving.checkpoint("measured", what, __name__, given | {"runs": [asdict(run) for run in runs]})
    done = Measurements.restored(checkpoint.read())
    held = read_enough(tuples, runs)
    reported = held[: max(run.n_edits * (max_groups.get(run.n_edits) or len(held)) for run in runs)]
    seeds = {run.seed for run in runs[len(done.runs) :]}
    evaluations = {seed: Evaluation(model, reported, settings.batch_size, seed, base_outputs) for seed in seeds}
    done.ask({seed: asked(evaluation, reported[:n_answers], seed) for seed, evaluation in evaluations.items()})
    with checkpoint.saving(done.state) as group_done:
        for run in runs[len(done.runs) :]:
            what, evaluation = spec.named(settings.label, run), evaluations[run.seed]
            try:
                limit, before = max_groups.get(run.n_edits), len(done.groups)
                results = measure(editor.make(layers, run), evaluation, run.n_edits, limit, what, before)
                for result in results:
                    start = run.n_edits * len(done.groups)
                    done.add(result, answers(evaluation, result.predictions, slice(start, n_answers)))
                    group_done()
                done.end(run)
            except DivergedError as error:
                if not settings.may_diverge:
                    raise UserError(f"{what}: {error}; set may_diverge if that is a result to report.") from None
                done.end(run, diverged=str(error))
    return done.metrics_file(spec, editor), CostsFile(tuple(done.costs)), done.answers_file(spec, editor)


def measure(
    editor: Editor, evaluation: Evaluation, n_edits: int, max_groups: int | None, what: str, before: int = 0
) -> Iterator[GroupResult]:
    """Edit and measure each group except the first ``before`` ones; ``what`` names the work in the log."""
    groups = evaluation.groups(n_edits, max_groups)
    new = editor.memory() if isinstance(editor, Remembering) else {}
    for group in progress(groups[before:], len(groups), what, before=before):
        if isinstance(editor, Remembering):
            editor.restore(new)  # Each group is edited into the unedited model.
        yield evaluation.run(editor, group)


class MeasuredGroup(BaseModel):
    """A finished group of the current run: its metrics, what it cost, and the answers that are kept."""

    metrics: GroupMetrics
    seconds: float
    peak_bytes: int
    answers: tuple[Answers, ...]


class Measurements(BaseModel):
    """The measurements so far.

    Attributes:
        runs: the finished runs.
        costs: costs of the finished runs that did not diverge.
        asked: what the runs are asked, by seed.
        answered: answers of the finished runs that did not diverge.
        groups: finished groups of the current run.
    """

    runs: list[RunMetrics]
    costs: list[Cost]
    asked: list[Asked]
    answered: list[AnsweredRun]
    groups: list[MeasuredGroup]

    @classmethod
    def restored(cls, state: State | None) -> "Measurements":
        """Return the measurements of a state; empty ones without a state."""
        nothing = cls(runs=[], costs=[], asked=[], answered=[], groups=[])
        return cls.model_validate(state.values) if state else nothing

    def state(self) -> State:
        """Return the state from which to resume."""
        return State(values=self.model_dump(exclude_unset=True))

    def ask(self, prompts: Mapping[int, tuple[AskedTuple, ...]]) -> None:
        """Add what the runs of further seeds are asked."""
        known = {one.seed for one in self.asked}
        self.asked += [Asked(seed=seed, tuples=tuples) for seed, tuples in prompts.items() if seed not in known]

    def add(self, group: GroupResult, said: Sequence[Answers]) -> None:
        """Add a group to the current run, with the answers to those of its tuples that are kept."""
        metrics = GroupMetrics.model_validate(group.metrics)
        self.groups.append(
            MeasuredGroup(metrics=metrics, seconds=group.seconds, peak_bytes=group.peak_bytes, answers=tuple(said))
        )

    def end(self, run: Run, diverged: str | None = None) -> None:
        """Make the current groups a finished run, or drop them if the run diverged, for a reason."""
        if diverged is None:
            groups = tuple(group.metrics for group in self.groups)
            self.runs.append(RunMetrics(**asdict(run), status="ok", reason=None, groups=groups))
            seconds = sum(group.seconds for group in self.groups) / len(self.groups)
            self.costs.append(Cost(run=run, seconds=seconds, peak_bytes=max(group.peak_bytes for group in self.groups)))
            said = tuple(answer for group in self.groups for answer in group.answers)
            self.answered.append(AnsweredRun(**asdict(run), answers=said))
        else:
            self.runs.append(RunMetrics(**asdict(run), status="diverged", reason=diverged, groups=()))
        self.groups.clear()

    def metrics_file(self, spec: ModelSpec, editor: EditorSpec) -> MetricsFile:
        """Return the finished runs as a metrics file."""
        labels = {"model_label": spec.label, "editor_label": editor.settings.label}
        return MetricsFile(model=spec.name, dataset=spec.dataset, editor=editor.name, **labels, runs=tuple(self.runs))

    def answers_file(self, spec: ModelSpec, editor: EditorSpec) -> AnswersFile:
        """Return the answers of the finished runs as an answers file."""
        by_seed = sorted(self.asked, key=lambda one: one.seed)
        return AnswersFile(model=spec.name, editor=editor.name, asked=tuple(by_seed), runs=tuple(self.answered))
