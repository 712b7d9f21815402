"""Checking a model that anyone edited: the same measurements and the same verdict as after ``malmen edit``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from malmen.config.base import BatchSize
from malmen.data.formats import ReadFrom
from malmen.errors import DivergedError, UserError
from malmen.models.prompt_form import PromptForm
from malmen.own_facts.facts import Fact, file_of, refuse_contradictions
from malmen.own_facts.lm_eval import TaskScore
from malmen.own_facts.model import LoadedModel, ModelSource
from malmen.own_facts.observe import Observed, Prompts, findings, observe
from malmen.own_facts.ordinary_text import OrdinaryText
from malmen.own_facts.report import Findings, described_model, described_prompts


@dataclass(frozen=True)
class Questions:
    """What a model is checked with.

    Attributes:
        facts: the facts that were edited into it.
        unrelated: questions that the edit should not have changed; those of general knowledge if there are none.
        text: ordinary text for perplexity.
        batch_size: sequences run at once.
        most: how many facts, rephrasings and unrelated questions are asked at most; None for all.
        edited_in: the form in which the facts were edited, which is the default; None if nobody knows.
    """

    facts: Sequence[Fact]
    unrelated: Sequence[Fact]
    text: OrdinaryText
    batch_size: BatchSize
    most: int | None = None
    edited_in: PromptForm | None = None


@dataclass(frozen=True)
class Checked:
    """A model that was asked, without the model itself.

    Attributes:
        source: where it comes from.
        prompts: what it was asked, as its tokenizer encodes it.
        form: the form in which it was asked.
        observed: what it answered.
    """

    source: ModelSource
    prompts: Prompts
    form: PromptForm
    observed: Observed


@dataclass(frozen=True, kw_only=True)
class CheckReport(Findings):
    """The result of a check.

    Attributes:
        model: directory or hub id of the model.
        revision: commit of the hub's repository; None for a directory.
        weights: SHA-256 of its weights.
        dtype: precision in which it was loaded.
        before: directory or hub id of the model before the edit; None if none was given.
        weights_before: SHA-256 of its weights.
        form: the text before and after each prompt, and the space before an answer.
        facts: file of the facts; None if they were made in Python.
        unrelated: file of the unrelated questions; None for the built-in ones, or if they were made in Python.
        read: the format of the file of facts; None if they were made in Python.
        tasks: scores on tasks of lm-evaluation-harness, if any were run.
    """

    model: str
    revision: str | None
    weights: str
    dtype: str
    before: str | None
    weights_before: str | None
    form: PromptForm
    facts: str | None
    unrelated: str | None
    read: ReadFrom | None
    tasks: list[TaskScore]

    def write(self, folder: str | Path) -> None:
        """Write ``check.json``, ``check.md`` and ``check.html`` into a folder, which is made if there is none."""
        self.write_pages(Path(folder), "check", f"Is {self.model} still good?", self.description())

    def description(self) -> list[str]:
        """Return the models, the facts and the unrelated questions, a line each."""
        before = [f"Before the edit: `{self.before}`; SHA-256 of its weights: {self.weights_before}"]
        form = f"{self.form.before!r} before each prompt, {self.form.after!r} after it"
        return [
            described_model(self.model, self.revision, self.weights, f"loaded in {self.dtype}"),
            *(before if self.before else ["Before the edit: not given, so nothing is compared with it"]),
            f"Prompts: {form if self.form.before or self.form.after else 'asked as they are'}",
            *described_prompts(self, self.facts, self.unrelated, self.read),
            *(f"Task {score}" for score in self.tasks),
        ]


def look_at(model: LoadedModel, questions: Questions, when: str) -> Checked:
    """Ask a model.

    Args:
        model: the model.
        questions: what it is asked.
        when: "before the edit" or "after the edit", for progress lines.

    Raises:
        UserError: if there are no facts, they contradict each other or cannot be read, or the model's outputs are no
            numbers.
    """
    if not questions.facts:
        raise UserError("There are no facts to check; give at least one.")
    refuse_contradictions(questions.facts)
    language_model = model.language_model
    with model.asked_as_edited(questions.edited_in):
        prompts = Prompts.of(model, questions.facts, questions.unrelated, questions.text, questions.most)
        try:
            observed = observe(language_model, prompts, questions.batch_size, when)
        except DivergedError as error:
            raise UserError(f"{model.source.name} fails: {error}; do not use this model.") from None
        return Checked(model.source, prompts, language_model.form, observed)


def compared(
    model: LoadedModel, questions: Questions, before: Checked | None, tasks: Sequence[TaskScore] = ()
) -> CheckReport:
    """Ask a model and return what is found, compared with the model before the edit if there is one.

    Raises:
        UserError: as in :func:`look_at`, and if the two models do not read the prompts alike.
    """
    after = look_at(model, questions, "after the edit" if before else "now")
    if before and (before.prompts.examples, before.form) != (after.prompts.examples, after.form):
        raise UserError(
            f"{before.source.name} and {model.source.name} read the same prompts as different tokens, so their answers "
            "do not compare; give the model that was edited as --before, or the same --template for both."
        )
    found = findings(model.language_model, after.prompts, before.observed if before else None, after.observed)
    return CheckReport(
        model=after.source.name,
        revision=after.source.revision,
        weights=after.source.weights,
        dtype=after.source.dtype,
        before=before.source.name if before else None,
        weights_before=before.source.weights if before else None,
        form=after.form,
        facts=file_of(questions.facts),
        unrelated=file_of(after.prompts.asked.unrelated) if after.prompts.known else None,
        read=questions.facts[0].read,
        tasks=list(tasks),
        **vars(found),
    )
