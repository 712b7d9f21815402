"""The report of an edit: as JSON, as a page of Markdown, and as a table of scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malmen.data.formats import ReadFrom
from malmen.editing.editor_file import TrainedFor
from malmen.runtime.files import write_json, write_text

SHOWN = 10
"""How many facts, and how many failures, the page shows; the JSON file has all of them."""

MEASURES = {
    "ES": ("pre_ES", "edit success: the facts"),
    "by_text": (None, "facts answered by text alone, of a sample"),
    "GS": ("pre_GS", "generalisation success: their rephrasings"),
    "LS": ("pre_LS", "locality success: unrelated questions"),
    "agreement": (None, "unrelated questions answered as before"),
}
"""For each metric, the key of its value before the edit, and its meaning."""
METRICS = {key for name, (before, _) in MEASURES.items() for key in (name, before) if key}
"""The keys of scores."""


class EditScores(dict[str, float]):
    """ES, GS and LS after an edit, the same with ``pre_`` before it, and ``agreement``; shares of tokens in 0..1.

    ``by_text`` is the share of a sample of facts whose answers the edited model gives by itself (:class:`AskedByText`).
    It is missing for fact checkers, GS if there are no rephrasings, LS if the unrelated questions are the built-in
    ones. As text, the scores are a table in percent.
    """

    def __str__(self) -> str:
        rows = [f"{name:<10} {before:>8} {after:>8}  {meaning}" for name, before, after, meaning in self.rows()]
        return "\n".join([f"{'':<10} {'before':>8} {'after':>8}", *rows])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return name, value before, value after and meaning of each metric that was measured."""
        return [
            (name, percent(self[pre]) if pre else "", percent(self[name]), meaning)
            for name, (pre, meaning) in MEASURES.items()
            if name in self
        ]


@dataclass(frozen=True)
class Answer:
    """How a fact was answered before and after the edit, each token given the right tokens before it.

    Attributes:
        prompt: the question.
        answer: the new answer.
        before: the answer of the unedited model.
        after: the answer of the edited model.
        correct: share of the tokens of ``after`` that are those of ``answer``, in 0..1.
    """

    prompt: str
    answer: str
    before: str
    after: str
    correct: float


@dataclass(frozen=True)
class TextAnswer:
    """What the edited model said to a prompt by itself.

    Attributes:
        prompt: the question.
        answer: the new answer.
        said: how the model continued the prompt, as far as the answer is long and a token more.
        right: whether that begins with the answer.
    """

    prompt: str
    answer: str
    said: str
    right: bool


@dataclass(frozen=True)
class AskedByText:
    """How the edited model answered a sample of facts by itself, from the text of their prompts.

    Attributes:
        seed: seed of the sample.
        facts: indices of the facts in it.
        asked: their number.
        right: number of right answers.
        answers: what it said to each.
    """

    seed: int
    facts: list[int]
    asked: int
    right: int
    answers: list[TextAnswer]

    @property
    def share(self) -> float:
        """Return the share of right answers, 0..1."""
        return self.right / self.asked

    def __str__(self) -> str:
        return f"asked by text alone: {self.right} of {self.asked} facts"


@dataclass(frozen=True)
class EditReport:
    """The result of an edit.

    Attributes:
        model: directory or hub id of the unedited model.
        revision: commit of the hub's repository; None for a directory.
        weights: SHA-256 of the unedited weights.
        dtype: precision in which they were edited.
        editor: file of the editor, "not saved", "ft" or "memit".
        trained_for: what the editor was trained for; None for "ft" and "memit".
        covariance: file of the key covariance; None without MEMIT.
        facts: file of the facts; None if they were made in Python.
        unrelated: file of the unrelated questions, that of the facts if their records hold them; None for the built-in
            ones, or if they were made in Python.
        read: the format of the file of facts, the field that is the answer, and how many records were left out; None
            if the facts were made in Python.
        counts: number of facts, of rephrasings and of unrelated questions.
        metrics: the scores.
        answers: the answers to all facts.
        by_text: what the edited model said to some of them by itself; None for a fact checker, and if the model cannot
            generate.
    """

    model: str
    revision: str | None
    weights: str
    dtype: str
    editor: str
    trained_for: TrainedFor | None
    covariance: str | None
    facts: str | None
    unrelated: str | None
    read: ReadFrom | None
    counts: dict[str, int]
    metrics: EditScores
    answers: list[Answer]
    by_text: AskedByText | None

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` into a folder."""
        write_json(folder / "report.json", asdict(self))
        write_text(folder / "report.md", self.page())

    def page(self) -> str:
        """Return the report as Markdown."""
        failures = [answer for answer in self.answers if answer.correct < 1]
        parts = [
            f"# {self.counts['facts']} facts edited into {self.model}",
            table(("", "before", "after", ""), self.metrics.rows()),
            self.description(),
            "## Answers before and after\n\nEach token is the most probable one given the right tokens before it. "
            "`report.json` has all facts.",
            answer_table(self.answers[:SHOWN]),
        ]
        if self.by_text:
            parts += [
                "## Asked by text alone",
                f"The edited model answers {self.by_text.right} of {self.by_text.asked} facts (drawn with seed "
                f"{self.by_text.seed}) by itself, from the prompt as a user types it. An answer is right if what the "
                "model says begins with it.",
                text_table(self.by_text.answers),
            ]
        if failures:
            parts += [f"## Facts with a wrong answer ({len(failures)})", answer_table(failures[:SHOWN])]
        return "\n\n".join(parts) + "\n"

    def description(self) -> str:
        """Return a list of the model, the editor, the facts and the unrelated questions."""
        editor = f"MEMIT (key covariance: `{self.covariance}`)" if self.covariance else "fine-tuning"
        if trained := self.trained_for:
            editor = f"{trained.editor} (`{self.editor}`; trained for {trained.n_edits} edits, seed {trained.seed})"
        facts = f"from `{self.facts}`" if self.facts else "made in Python"
        read = f"; format: {self.read}" if self.read else ""
        given = f"from `{self.unrelated}`" if self.unrelated else "made in Python"
        if self.unrelated and self.unrelated == self.facts:
            given = "of the same records"
        unrelated = given if "LS" in self.metrics else "of general knowledge, built in"
        revision = f" at {self.revision}" if self.revision else ""
        return "\n".join(
            [
                f"- Model: `{self.model}`{revision}; SHA-256 of its weights: {self.weights}; edited in {self.dtype}",
                f"- Editor: {editor}",
                f"- Facts: {self.counts['facts']} {facts}, with {self.counts['rephrasings']} rephrasings{read}",
                f"- Unrelated questions: {self.counts['unrelated']} {unrelated}",
            ]
        )


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def answer_table(answers: Sequence[Answer]) -> str:
    """Return a Markdown table of answers."""
    rows = [(answer.prompt, answer.answer, answer.before, answer.after) for answer in answers]
    return table(("prompt", "new answer", "before", "after"), rows)


def text_table(answers: Sequence[TextAnswer]) -> str:
    """Return a Markdown table of what a model said."""
    rows = [(answer.prompt, answer.answer, answer.said, "yes" if answer.right else "no") for answer in answers]
    return table(("prompt", "new answer", "said", "right"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text on one line in which nothing ends a table's cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
