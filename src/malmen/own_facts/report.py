"""The report of an edit: as JSON, as pages of Markdown and HTML, and as a table of scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from malmen.data.formats import ReadFrom
from malmen.editing.editor_file import TrainedFor
from malmen.editing.memit.covariance import CollectedFrom
from malmen.models.prompt_form import PromptForm
from malmen.own_facts.answers import NOTHING, Answer
from malmen.own_facts.health import Health, Verdict, beyond_training
from malmen.own_facts.lookup_page import lookup_page
from malmen.runtime.files import write_json, write_text

SHOWN = 10
"""How many facts, and how many failures, the page shows; the JSON file has all of them."""

MEASURES = {
    "ES": ("pre_ES", "edit success: the facts"),
    "by_text": ("pre_by_text", "facts answered by text alone, of a sample"),
    "GS": ("pre_GS", "generalisation success: their rephrasings"),
    "LS": ("pre_LS", "locality success: unrelated questions"),
    "agreement": (None, "unrelated questions answered as before"),
}
"""For each metric, the key of its value before the edit, and its meaning."""
METRICS = {key for name, (before, _) in MEASURES.items() for key in (name, before) if key}
"""The keys of scores."""


class EditScores(dict[str, float]):
    """ES, GS and LS after an edit, the same with ``pre_`` before it, and ``agreement``; shares of tokens in 0..1.

    ``by_text`` is the share of a sample of facts whose answers the model gives by itself (:class:`AskedByText`). It is
    missing for fact checkers, GS if there are no rephrasings, LS if the unrelated questions are the built-in ones, and
    what needs the unedited model if there is none. As text, the scores are a table in percent.
    """

    def __str__(self) -> str:
        rows = [f"{name:<10} {before:>8} {after:>8}  {meaning}" for name, before, after, meaning in self.rows()]
        return "\n".join([f"{'':<10} {'before':>8} {'after':>8}", *rows])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return name, value before, value after and meaning of each metric that was measured."""
        return [
            (name, percent(self[pre]) if pre and pre in self else "", percent(self[name]), meaning)
            for name, (pre, meaning) in MEASURES.items()
            if name in self
        ]


@dataclass(frozen=True)
class AskedByText:
    """How many of a sample of facts the edited model answered by itself, from the text of their prompts.

    Attributes:
        seed: seed of the sample.
        facts: indices of the facts in it, among those that were asked.
        asked: their number.
        right: number of right answers.
    """

    seed: int
    facts: list[int]
    asked: int
    right: int

    @property
    def share(self) -> float:
        """Return the share of right answers, 0..1."""
        return self.right / self.asked


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was measured of an edited model.

    Attributes:
        verdict: whether to use it.
        counts: number of facts, of rephrasings and of unrelated questions, whether they were measured or not.
        metrics: the scores.
        health: what the verdict rests on.
        answers: the answers to all facts that were asked.
        answers_to_rephrasings: the same of the rephrasings.
        answers_to_unrelated: the same of the unrelated questions.
        by_text: how many facts the model answered by itself; None for a fact checker, and if the model cannot generate.
    """

    verdict: Verdict
    counts: dict[str, int]
    metrics: EditScores
    health: Health
    answers: list[Answer]
    answers_to_rephrasings: list[Answer]
    answers_to_unrelated: list[Answer]
    by_text: AskedByText | None

    def write_pages(self, folder: Path, name: str, title: str, description: Sequence[str]) -> None:
        """Write the findings into a folder as ``name.json``, ``name.md`` and ``name.html``."""
        write_json(folder / f"{name}.json", asdict(self))
        write_text(folder / f"{name}.md", self.markdown(name, title, description))
        kinds = {"fact": self.answers, "rephrasing": self.answers_to_rephrasings}
        kinds |= {"unrelated": self.answers_to_unrelated}
        write_text(
            folder / f"{name}.html",
            lookup_page(title, self.verdict, self.metrics.rows(), description, kinds, self.health.generations),
        )

    def markdown(self, name: str, title: str, description: Sequence[str]) -> str:
        """Return the findings as Markdown; ``description`` is a list of what was measured."""
        failures = [answer for answer in self.answers if not answer.right]
        changed = [answer for answer in self.answers_to_unrelated if answer.changed]
        parts = [
            f"# {title}",
            f"**{self.verdict.sentence}**",
            *self.verdict.advice,
            table(("", "before", "after", ""), self.metrics.rows()),
            "\n".join(f"- {line}" for line in description),
            f"## Facts\n\n{HOW_ASKED} `{name}.html` has all facts, rephrasings and unrelated prompts that were asked.",
            answer_table(self.answers[:SHOWN]),
        ]
        if failures:
            parts += [f"## Facts with a wrong answer ({len(failures)})", answer_table(failures[:SHOWN])]
        if changed:
            parts += [f"## Unrelated answers that changed ({len(changed)})", answer_table(changed[:SHOWN])]
        if self.health.generations:
            rows = [(one.opening, shown(one.before), shown(one.after)) for one in self.health.generations]
            parts += ["## What the model writes by itself", table(("opening", "before", "after"), rows)]
        return "\n\n".join(parts) + "\n"


HOW_ASKED = (
    "Answers are what the model says by itself where it was asked so; those in brackets were read token by token, each "
    "given the right tokens before it."
)


@dataclass(frozen=True, kw_only=True)
class EditReport(Findings):
    """The result of an edit.

    Attributes:
        model: directory or hub id of the unedited model.
        revision: commit of the hub's repository; None for a directory.
        weights: SHA-256 of the unedited weights.
        dtype: precision in which they were edited.
        form: how the model was asked: the text before and after each prompt, and the space before an answer.
        editor: file of the editor, "not saved", "ft" or "memit".
        trained_for: what the editor was trained for; None for "ft" and "memit".
        covariance: file of the key covariance; None without MEMIT.
        collected: the text that it was collected from, and the number of tokens; None without MEMIT.
        facts: file of the facts; None if they were made in Python.
        unrelated: file of the unrelated questions, that of the facts if their records hold them; None for the built-in
            ones, or if they were made in Python.
        read: the format of the file of facts, the field that is the answer, and how many records were left out; None
            if the facts were made in Python.
        rounds: in how many rounds the facts were edited, each into the model with the rounds before it.
    """

    model: str
    revision: str | None
    weights: str
    dtype: str
    form: PromptForm
    editor: str
    trained_for: TrainedFor | None
    covariance: str | None
    collected: CollectedFrom | None
    facts: str | None
    unrelated: str | None
    read: ReadFrom | None
    rounds: int

    def write(self, folder: Path) -> None:
        """Write ``report.json``, ``report.md`` and ``report.html`` into a folder."""
        title = f"{self.counts['facts']} facts edited into {self.model}"
        self.write_pages(folder, "report", title, self.description())

    def description(self) -> list[str]:
        """Return the model, the editor, the facts and the unrelated questions, a line each."""
        editor = "fine-tuning"
        if text := self.collected:
            editor = f"MEMIT (key covariance: `{self.covariance}`, from {text.tokens:,} tokens of {text.source})"
        if trained := self.trained_for:
            editor = f"{trained.editor} (`{self.editor}`; trained for {trained.n_edits} edits, seed {trained.seed})"
        if self.rounds > 1:
            editor += f", in {self.rounds} rounds, each on the model with the rounds before it"
        if self.rounds > 1 and self.trained_for:
            editor += " (the editor was trained for the unedited model alone)"
        at_once, expected = -(-self.counts["facts"] // self.rounds), []
        if trained and at_once > trained.n_edits:
            expected = [beyond_training(at_once, trained.n_edits)]
        return [
            described_model(self.model, self.revision, self.weights, f"edited in {self.dtype}"),
            f"Prompts and answers in the form {self.form}",
            f"Editor: {editor}",
            *expected,
            *described_prompts(self, self.facts, self.unrelated, self.read),
        ]


def described_model(name: str, revision: str | None, weights: str, more: str) -> str:
    """Return a line about a model."""
    return f"Model: `{name}`{f' at {revision}' if revision else ''}; SHA-256 of its weights: {weights}; {more}"


def described_prompts(found: Findings, facts: str | None, unrelated: str | None, read: ReadFrom | None) -> list[str]:
    """Return lines about the files of facts and unrelated questions, and the text for perplexity."""
    given = f"from `{unrelated}`" if unrelated else "made in Python"
    if unrelated and unrelated == facts:
        given = "of the same records"
    format_read = f"; format: {read}" if read else ""
    source = given if "LS" in found.metrics else "of general knowledge, built in"
    text = f"`{found.health.text}`" if found.health.text else "built in"
    made = f"from `{facts}`" if facts else "made in Python"
    measured = [len(kind) for kind in (found.answers, found.answers_to_rephrasings, found.answers_to_unrelated)]
    part = "Measured: {} of the facts, {} of the rephrasings and {} of the unrelated questions".format(*measured)
    return [
        f"Facts: {found.counts['facts']} {made}, with {found.counts['rephrasings']} rephrasings{format_read}",
        f"Unrelated questions: {found.counts['unrelated']} {source}",
        *([part] if measured != list(found.counts.values()) else []),
        f"Text for perplexity: {text}; SHA-256: {found.health.text_sha256}",
    ]


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def answer_table(answers: Sequence[Answer]) -> str:
    """Return a Markdown table of answers."""
    rows = [
        (answer.prompt, answer.answer, answer.shown_before or "", answer.shown, "yes" if answer.right else "no")
        for answer in answers
    ]
    return table(("prompt", "right answer", "before", "after", "right"), rows)


def shown(text: str | None) -> str:
    """Return what a model said; words for nothing, and nothing for what it was not asked."""
    return "" if text is None else text or NOTHING


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text on one line in which nothing ends a table's cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
