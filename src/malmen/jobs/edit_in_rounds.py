"""Editing in rounds with one editor, and measuring all edits so far after some of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from malmen.config.editor import EditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.rounds import Rounds
from malmen.data.tuples import EditTuple
from malmen.editing.base_outputs import LiveBaseOutputs
from malmen.editing.editor import Editor
from malmen.editing.evaluation import Evaluation
from malmen.editing.hypernetwork_in_rounds import RetrainedInRounds
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.measures import StrictMeasures
from malmen.editing.rounds import EditedInRounds
from malmen.errors import DivergedError
from malmen.jobs.collect_covariance import lines_of
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.train_editor import train_editor
from malmen.models.language_model import LanguageModel, with_loss_weights
from malmen.models.perplexity import text_examples
from malmen.results.rounds import Measured, RoundsCost, RoundsCostsFile, RoundsFile, RoundsRun
from malmen.results.run import Run
from malmen.runtime.checkpoint import NOTHING_SAVED, Checkpoint, Saving, State
from malmen.runtime.files import sha256
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.progress import progress
from malmen.runtime.ranks import ranks
from malmen.runtime.work_clock import seconds_of_all_ranks, work_seconds


@dataclass(frozen=True)
class Measuring:
    """What is measured beside ES, GS, LS and the agreement.

    Attributes:
        text: a file of one text per line, on which perplexity is measured.
        n_texts: how many of its lines, evenly spread; 0: none.
        n_decoded: how many tuples, the first of those edited, the model answers by itself; 0: none.
    """

    text: Path
    n_texts: int
    n_decoded: int

    def of(self, model: LanguageModel, settings: EditorSettings, tuples: Sequence[EditTuple], seed: int) -> "Measures":
        """Measure the unedited model on tuples.

        Raises:
            UserError: if the text cannot be read.
        """
        lines = list(lines_of(self.text)) if self.n_texts else []
        every = max(1, len(lines) // max(1, self.n_texts))
        text = text_examples(model, "\n".join(lines[::every][: self.n_texts])) if lines else ()
        return Measures(
            Evaluation(model, tuples, settings.batch_size, seed),
            StrictMeasures(model, tuples, settings.batch_size, seed, text, self.n_decoded),
        )


@dataclass(frozen=True)
class Measures:
    """What is measured of the model as it is: ES, GS, LS and the agreement, and stricter measures."""

    evaluation: Evaluation
    strict: StrictMeasures

    def of(self, n: int) -> dict[str, float]:
        """Return the measures of the first n tuples, by their names in :data:`malmen.results.rounds.MEASURES`.

        Raises:
            DivergedError: if an output of the model is not a number.
        """
        first = slice(n)
        return self.evaluation.metrics(self.evaluation.scores(first), first) | self.strict.of(n)


def edit_in_rounds(
    spec: ModelSpec,
    editor: EditorSpec,
    tuples: Path,
    rounds: Sequence[Rounds],
    seeds: Sequence[int],
    measuring: Measuring,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
    train: Path | None = None,
) -> tuple[RoundsFile, RoundsCostsFile]:
    """Edit in rounds of each kind with each seed, each time from the unedited model, and measure.

    A round that diverges ends its run, which is a result.

    Args:
        spec: the model.
        editor: the editor.
        tuples: the split to edit and to report on: its first T m tuples, in their order.
        rounds: how many rounds of how many edits.
        seeds: of the equivalent prompts and the editor's random draws.
        measuring: what is measured beside ES, GS, LS and the agreement.
        machine: where to run.
        saving: where to keep the state of the current run during the job.
        train: file of the training tuples, of an editor that is trained anew in rounds.

    Raises:
        UserError: if rounds need more tuples than the split has.
    """
    model, settings = spec.load(machine), editor.settings
    layers = spec.layers(model, settings)
    runs = [(one, Run(one.n_edits, seed)) for seed in seeds for one in rounds]
    given: dict[str, Any] = {"machine": machine.identity()}
    given |= {"n_texts": measuring.n_texts, "n_decoded": measuring.n_decoded}
    given |= {"model": spec.identity(), "editor": editor.identity([run for _, run in runs])}
    given |= {"tuples": sha256(tuples), "text": sha256(measuring.text), "train": sha256(train) if train else None}
    given |= {"rounds": [one.model_dump() for one in rounds], "seeds": list(seeds)}
    checkpoint = saving.checkpoint("rounds", f"{settings.label} on {spec.label} in rounds", __name__, given)
    held = read_enough(tuples, [Run(one.total, seed) for one in rounds for seed in seeds])
    reported = held[: max(one.total for one in rounds)]
    again = read_enough(train, [run for _, run in runs]) if train else []
    state = checkpoint.read()
    done = Progress.restored(state)
    measures: dict[int, Measures] = {}
    with checkpoint.saving(done.state) as round_done:
        for one, run in runs[len(done.runs) :]:
            if run.seed not in measures:
                measures = {run.seed: measuring.of(model, settings, reported, run.seed)}
            what = f"{settings.label} on {spec.label}, {one.n_rounds} rounds of {one.n_edits}, seed {run.seed}"
            under_way = Course(measures[run.seed], one, what, done)
            try:
                under_way.begin(ready(editor, model, layers, run, again), state.tensors if state else {})
                for _ in under_way.rounds():
                    round_done()
                done.end(one, run)
            except DivergedError as error:
                done.end(one, run, f"round {done.n_made + 1}: {error}")
            state = None
    return done.rounds_file(spec, editor), RoundsCostsFile(tuple(done.costs))


def ready(
    spec: EditorSpec, model: LanguageModel, layers: Sequence[EditedLayer], run: Run, train: Sequence[EditTuple]
) -> Editor:
    """Return the editor of a run; one that is trained anew gets the training tuples.

    Raises:
        DivergedError: if its training diverged.
        UserError: if a file is missing, broken, or belongs to another model.
    """
    editor, settings = spec.make(layers, run), spec.settings
    if not isinstance(settings, HyperNetworkEditorSettings) or not settings.in_rounds.retrain_every:
        return editor
    assert isinstance(editor, HyperNetworkEditor)
    patient = replace(settings, may_diverge=True)

    def train_anew() -> HyperNetworkEditor:
        checkpoint = Checkpoint(None, f"{settings.label}, trained anew")
        trained, outcome, _ = train_editor(
            model, layers, patient, train, run, checkpoint, LiveBaseOutputs(model, layers)
        )
        if outcome.reason:
            raise DivergedError(outcome.reason)
        return trained

    return RetrainedInRounds(editor, train_anew, settings.in_rounds.retrain_every)


class Progress(BaseModel):
    """The runs so far.

    Attributes:
        runs: the finished runs.
        costs: what they cost.
        n_made: rounds made of the current run.
        measured: its measurements.
        seconds: of its rounds.
        peak_bytes: its peak memory.
    """

    runs: list[RoundsRun]
    costs: list[RoundsCost]
    n_made: int = 0
    measured: list[Measured]
    seconds: list[float]
    peak_bytes: int = 0
    _edited: EditedInRounds | None = None

    @classmethod
    def restored(cls, state: State | None) -> "Progress":
        """Return the progress of a state; none without a state."""
        return cls.model_validate(state.values) if state else cls(runs=[], costs=[], measured=[], seconds=[])

    def begin(self, edited: EditedInRounds) -> None:
        """Take note of whose tensors belong to the state."""
        self._edited = edited

    def state(self) -> State:
        """Return the state from which to resume."""
        return State(self._edited.tensors() if self._edited and self.n_made else {}, self.model_dump())

    def end(self, rounds: Rounds, run: Run, diverged: str | None = None) -> None:
        """Make the current run a finished one."""
        kind = {"n_rounds": rounds.n_rounds, "n_edits": rounds.n_edits, "seed": run.seed}
        whole = {"status": "diverged" if diverged else "ok", "reason": diverged, "measured": tuple(self.measured)}
        self.runs.append(RoundsRun.model_validate({**kind, **whole}))
        cost = {**kind, "seconds": tuple(self.seconds), "peak_bytes": self.peak_bytes}
        self.costs.append(RoundsCost.model_validate(cost))
        self.n_made, self.peak_bytes, self._edited = 0, 0, None
        self.measured.clear()
        self.seconds.clear()

    def rounds_file(self, spec: ModelSpec, editor: EditorSpec) -> RoundsFile:
        """Return the finished runs as a rounds file."""
        labels = {"model_label": spec.label, "editor_label": editor.settings.label}
        return RoundsFile(model=spec.name, dataset=spec.dataset, editor=editor.name, **labels, runs=tuple(self.runs))


class Course:
    """One run: its rounds, and the measurements between them.

    Args:
        measures: of the tuples that are edited.
        rounds: how many rounds of how many edits.
        what: the name of the work in the log.
        done: where rounds and measurements are noted.
    """

    def __init__(self, measures: Measures, rounds: Rounds, what: str, done: Progress) -> None:
        self.measures, self.kind, self.what, self.done = measures, rounds, what, done
        self.evaluation = measures.evaluation

    def begin(self, editor: Editor, tensors: dict[str, Any]) -> None:
        """Begin with an editor, or go on with what an interrupted run left."""
        self.edited = EditedInRounds(self.evaluation.model, editor)
        if self.done.n_made:
            self.edited.restore(tensors, self.done.n_made)
        self.done.begin(self.edited)

    def rounds(self) -> Iterator[int]:
        """Make the rounds that are left, measure after some, and yield the number of rounds made."""
        before, m = self.done.n_made, self.kind.n_edits
        left = range(before + 1, self.kind.n_rounds + 1)
        for made in progress(left, self.kind.n_rounds, self.what, before=before, unit="rounds"):
            self.edit(slice((made - 1) * m, made * m))
            if made in self.kind.measured:
                self.measure(made)
            self.done.n_made = made
            yield made

    def edit(self, group: slice) -> None:
        """Make one round, and note what it cost."""
        edits = with_loss_weights(self.evaluation.all.edit[group])
        device = self.evaluation.model.device
        with PeakMemory(device, self.done.peak_bytes) as memory:
            start = work_seconds(device)
            self.edited.edit(edits)
            self.done.seconds.append(seconds_of_all_ranks(work_seconds(device) - start, device))
        self.done.peak_bytes = ranks().largest(memory.peak_bytes)

    def measure(self, made: int) -> None:
        """Measure all edits of the rounds made."""
        n = made * self.kind.n_edits
        with self.edited.applied():
            values = self.measures.of(n)
        self.done.measured.append(Measured(after=made, n_edits=n, values=values))
