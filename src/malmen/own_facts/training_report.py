"""The report of a training: as JSON, as a page of Markdown, and as a figure of the losses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from malmen.figures.style import COLUMN_WIDTH, TEXT_WIDTH, theme
from malmen.own_facts.report import EditScores, table
from malmen.results.costs import Cost
from malmen.results.training import MetaLosses, TrainingFile
from malmen.runtime.files import replacing, write_json, write_text
from malmen.runtime.noted import NOTES
from malmen.runtime.ranks import ranks

if TYPE_CHECKING:
    from malmen.own_facts.training import Training

ENOUGH = {"ES": 0.9, "GS": 0.75}
"""Scores on held-out tuples from which on an editor counts as trained."""
SPOILT = 0.1
"""Share of the tokens of unrelated answers up to which a change is not mentioned."""


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training.

    Attributes:
        model: directory or hub id of the model.
        revision: commit of the hub's repository; None for a directory.
        weights: SHA-256 of its weights.
        dtype: their precision.
        form: how the model is asked: before, after and separator of a prompt.
        layers: names of the edited layers.
        settings: the editor, as under ``editors`` in a configuration.
        n_edits: number of edits m.
        seed: of all draws.
        tuples: number of tuples that it was trained on.
        held_out: number of tuples held out.
        measured: number of edits at once on the held-out tuples, on which the scores are.
        seconds: processor time of the training (on a GPU: wall time).
        peak_bytes: peak memory of the training.
        losses: of the meta-steps.
        scores: on the held-out tuples; None if there are none.
        ranks: how many processes shared the training, in turn; a training by one alone does not report it.
    """

    model: str
    revision: str | None
    weights: str
    dtype: str
    form: dict[str, str]
    layers: list[str]
    settings: dict[str, Any]
    n_edits: int
    seed: int
    tuples: int
    held_out: int
    measured: int
    seconds: float
    peak_bytes: int
    losses: Sequence[MetaLosses]
    scores: EditScores | None
    ranks: Sequence[int] = (1,)

    @property
    def steps(self) -> int:
        """Number of meta-steps taken."""
        return len(self.losses)

    @property
    def advice(self) -> str:
        """What to expect of the editor, and what to do."""
        if not self.scores:
            return "The editor was not measured: too few tuples to hold out any. Edit, and read the verdict."
        spoilt = 1 - self.scores["agreement"]
        if spoilt <= SPOILT:
            return self.readiness
        return (
            f"{self.readiness} Its edits change {100 * spoilt:.0f} % of what the model answers to unrelated questions; "
            "more --locality changes less."
        )

    @property
    def readiness(self) -> str:
        """For how many facts the editor is ready, or what to do before it is."""
        assert self.scores
        low = [
            f"{name} {100 * self.scores[name]:.1f} %" for name, enough in ENOUGH.items() if self.scores[name] < enough
        ]
        if not low and self.measured < self.n_edits:
            return (
                f"Ready to edit up to {self.measured} facts at once. More were not measured, since so few tuples were "
                f"held out; give at least {5 * self.n_edits:,} to measure {self.n_edits} at once."
            )
        if not low:
            return f"Ready to edit up to {self.n_edits} facts at once."
        return (
            f"Not trained enough: {' and '.join(low)} on tuples that it has not seen. Run the same command with "
            f"--steps {2 * self.steps}; the training goes on from here. If the losses no longer fall, give more tuples "
            "or --last-blocks, or try --tune."
        )

    @property
    def shared(self) -> str:
        """How many processes shared the training, as a part of a sentence; empty if one did it alone."""
        return "" if list(self.ranks) == [1] else f" in each of {', then '.join(map(str, self.ranks))} processes"

    def write(self, folder: Path) -> None:
        """Write ``report.json``, ``report.md`` and ``training.png`` into a folder."""
        found = asdict(self)
        if not self.shared:
            del found["ranks"]
        write_json(folder / "report.json", found | {"advice": self.advice})
        self.draw(folder / "training.png")
        write_text(folder / "report.md", self.page())

    def page(self) -> str:
        """Return the report as Markdown."""
        revision = f" at {self.revision}" if self.revision else ""
        asked = f"`{self.form['before']}{{prompt}}{self.form['after']}{self.form['separator']}{{answer}}`"
        lines = [
            f"- Model: `{self.model}`{revision}; SHA-256 of its weights: {self.weights}; in {self.dtype}",
            f"- Asked as {asked.replace(chr(10), chr(92) + 'n')}",
            f"- Training: {self.steps} meta-steps of {self.n_edits} edits on {self.tuples} tuples, seed {self.seed}; "
            f"{self.seconds / 60:.1f} minutes of the processor, {self.peak_bytes / 1e9:.1f} GB{self.shared}",
            f"- Layers: {', '.join(f'`{name}`' for name in self.layers)}",
        ]
        parts = [f"# {self.settings['label']} for {self.model}", self.advice, "\n".join(lines)]
        if self.scores:
            held = f"## On {self.held_out} tuples that it has not seen, {self.measured} at once"
            parts += [held, table(("", "before", "after", ""), self.scores.rows())]
        return "\n\n".join([*parts, "![Losses](training.png)"]) + "\n"

    def draw(self, path: Path) -> None:
        """Draw both losses over the meta-steps, and the scores before and after."""
        import matplotlib.pyplot as plt  # noqa: PLC0415 (slow to import)

        with theme():
            figure, (left, right) = plt.subplots(
                1, 2, figsize=(TEXT_WIDTH, COLUMN_WIDTH * 0.7), width_ratios=(3, 2), layout="constrained"
            )
            steps = range(1, self.steps + 1)
            left.plot(steps, [loss.generalisation for loss in self.losses], label="generalisation")
            left.plot(steps, [loss.locality for loss in self.losses], label="locality")
            left.set(xlabel="meta-step", ylabel="loss", ylim=(0, None), title="Training")
            left.legend()
            names = [name for name in ("ES", "GS", "LS") if self.scores and name in self.scores]
            for offset, (label, prefix) in enumerate((("before", "pre_"), ("after", ""))):
                heights = [100 * self.scores[prefix + name] for name in names] if self.scores else []
                right.bar([i + 0.38 * offset - 0.19 for i in range(len(names))], heights, width=0.36, label=label)
            right.set_xticks(range(len(names)), names)
            right.set(ylim=(0, 100), ylabel="%", title=f"Held-out tuples, m = {self.measured}")
            right.grid(visible=False, axis="x")
            right.legend()
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
            plt.close(figure)


def report_of(training: "Training", record: TrainingFile, cost: Cost, scores: EditScores | None) -> TrainingReport:
    """Return the report of a training that has ended, from its losses, its cost and the editor's scores."""
    source = training.model.source
    return TrainingReport(
        source.name,
        source.revision,
        source.weights,
        source.dtype,
        asdict(training.model.language_model.form),
        [layer.name for layer in training.layers],
        asdict(training.settings),
        training.run.n_edits,
        training.run.seed,
        len(training.tuples),
        len(training.held_out),
        training.measured_at_once,
        cost.seconds,
        cost.peak_bytes,
        record.losses,
        scores,
        NOTES.in_turn(ranks().size),
    )
