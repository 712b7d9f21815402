"""The report of an edit of one's own facts: as JSON, as a page, and in a few lines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malmen.editing.editor_file import TrainedFor
from malmen.jobs.common import write_json
from malmen.runtime.files import write_text

SHOWN = 10
"""So many facts, and so many failures, are shown on the page; all are in the JSON file."""

MEASURES = {
    "ES": ("pre_ES", "edit success: the facts"),
    "GS": ("pre_GS", "generalisation success: their rephrasings"),
    "LS": ("pre_LS", "locality success: unrelated questions"),
    "agreement": (None, "unrelated questions answered as before"),
}
"""By the key of a metric, that of its value before the edit, and what it is."""


@dataclass(frozen=True)
class Answer:
    """How a fact was answered before and after the edit, each token given the right tokens before it.

    Attributes:
        prompt: what was asked.
        answer: what should be answered.
        before: what the unedited model answers.
        after: what the edited model answers.
        correct: share of the tokens of ``after`` that are those of ``answer``, in 0..1.
    """

    prompt: str
    answer: str
    before: str
    after: str
    correct: float


@dataclass(frozen=True)
class EditReport:
    """What an edit came to.

    Attributes:
        model: directory or hub id of the unedited model.
        revision: the hub's commit; None for a directory.
        weights: digest of its weights.
        editor: file of the editor, "ft" or "memit".
        trained_for: what the editor was trained for; None for "ft" and "memit".
        statistics: file of the second moments, for "memit".
        facts: file of the facts.
        unrelated: file of the unrelated questions; None for the built-in ones.
        counts: number of facts, of rephrasings and of unrelated questions.
        metrics: ES, GS and LS after the edit, the same with ``pre_`` before it, and the agreement of the answers to
            unrelated questions with those before; in 0..1. GS is missing without rephrasings, LS on built-in questions.
        answers: of all facts.
    """

    model: str
    revision: str | None
    weights: str
    editor: str
    trained_for: TrainedFor | None
    statistics: str | None
    facts: str
    unrelated: str | None
    counts: dict[str, int]
    metrics: dict[str, float]
    answers: list[Answer]

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` into a folder."""
        write_json(folder / "report.json", asdict(self))
        write_text(folder / "report.md", self.page())

    def summary(self) -> str:
        """Return the metrics as lines of text in columns."""
        rows = [f"{name:<10} {before:>8} {after:>8}  {meaning}" for name, before, after, meaning in self.measured()]
        return "\n".join([f"{'':<10} {'before':>8} {'after':>8}", *rows])

    def page(self) -> str:
        """Return the report as Markdown."""
        failures = [answer for answer in self.answers if answer.correct < 1]
        parts = [
            f"# {self.counts['facts']} facts edited into {self.model}",
            table(("", "before", "after", ""), self.measured()),
            self.description(),
            "## Answers before and after\n\nEach token is the most probable one given the right tokens before it. "
            "All facts are in `report.json`.",
            answer_table(self.answers[:SHOWN]),
        ]
        if failures:
            parts += [f"## Facts that are not fully answered ({len(failures)})", answer_table(failures[:SHOWN])]
        return "\n\n".join(parts) + "\n"

    def measured(self) -> list[tuple[str, str, str, str]]:
        """Return name, value before, value after and meaning of each metric that was measured."""
        return [
            (name, percent(self.metrics[pre]) if pre else "", percent(self.metrics[name]), meaning)
            for name, (pre, meaning) in MEASURES.items()
            if name in self.metrics
        ]

    def description(self) -> str:
        """Return a list of what was edited, with what, and measured on what."""
        editor = f"MEMIT (second moments: `{self.statistics}`)" if self.statistics else "fine-tuning"
        if self.trained_for:
            trained = self.trained_for
            editor = f"{trained.editor} (`{self.editor}`; trained for {trained.n_edits} edits, seed {trained.seed})"
        unrelated = f"of `{self.unrelated}`" if self.unrelated else "on general knowledge, built in"
        revision = f" at {self.revision}" if self.revision else ""
        return "\n".join(
            [
                f"- Model: `{self.model}`{revision}, SHA-256 of its weights {self.weights}",
                f"- Editor: {editor}",
                f"- Facts: {self.counts['facts']} of `{self.facts}`, with {self.counts['rephrasings']} rephrasings",
                f"- Unrelated questions: {self.counts['unrelated']} {unrelated}",
            ]
        )


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def answer_table(answers: Sequence[Answer]) -> str:
    """Return a Markdown table of answers."""
    rows = [(answer.prompt, answer.answer, answer.before, answer.after) for answer in answers]
    return table(("prompt", "to be answered", "before", "after"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text on one line in which nothing ends a table's cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
