"""Editing facts into a model, all at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path

from transformers import PreTrainedModel

from malmen.config.settings import BatchSize
from malmen.data.tuples import Triple
from malmen.editing.layers import PostEditWeights, Shifts
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example
from malmen.own_facts.editors import Method, check_method, make_editor
from malmen.own_facts.facts import GENERAL_KNOWLEDGE, Fact, read_unrelated, refuse_contradictions
from malmen.own_facts.measure import answers_in_words, ask, compare, encode
from malmen.own_facts.methods import FineTuning, Memit
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.report import EditReport, EditScores
from malmen.own_facts.trained import TrainedEditor
from malmen.runtime.files import replacing_directory
from malmen.runtime.progress import logger


@dataclass(frozen=True)
class EditedModel:
    """A model with facts edited into it. The loaded model itself stays as it was, unless inside :meth:`applied`.

    Attributes:
        model: the unedited model.
        shifts: by the name of an edited layer, the shift S of its weight as (d_in, d_out).
        weights: the edited weights.
        report: the scores, and every fact's answer before and after the edit.
    """

    model: LoadedModel
    shifts: Shifts
    weights: PostEditWeights
    report: EditReport

    @property
    def scores(self) -> EditScores:
        """ES, GS and LS after the edit, the same with ``pre_`` before it, and ``agreement``; all in 0..1."""
        return self.report.metrics

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """Give the edited Hugging Face model inside a ``with`` block; afterwards its weights are the old ones, bit for bit."""
        with self.weights.applied():
            yield self.model.module

    def save(self, directory: str | Path, force: bool = False) -> None:
        """Write the edited model, its tokenizer, ``report.json`` and ``report.md`` into a directory, or nothing at all.

        Args:
            directory: New or empty directory for the edited model.
            force: Replace an edited model that is already in the directory.

        Raises:
            UserError: if the directory holds anything that may not be replaced.
        """
        check_out(Path(directory), force, [self.model.source.directory])
        with self.applied() as module, replacing_directory(Path(directory).resolve()) as folder:
            module.save_pretrained(folder)
            self.model.tokenizer.save_pretrained(folder)
            self.report.write(folder)


def edit_facts(
    model: LoadedModel, facts: Sequence[Fact], method: Method, unrelated: Sequence[Fact], batch_size: BatchSize
) -> EditedModel:
    """Edit facts into a model and measure it before and after; arguments and errors as in :func:`malmen.edit`.

    Without ``unrelated``, the model is asked questions of general knowledge, and LS is not measured.
    """
    check_method(method, model.source, facts)
    refuse_contradictions(facts)
    if isinstance(method, TrainedEditor) and len(facts) > (most := method.trained_for.n_edits):
        logger.warning("%d facts at once are more than the %d that the editor was trained for.", len(facts), most)
    rephrased = [other for fact in facts for other in fact.rephrased()]
    questions = list(unrelated) or read_unrelated(GENERAL_KNOWLEDGE[model.source.task])
    asked = Triple(list(facts), rephrased, questions)
    examples = asked.map(partial(encode, model.language_model))
    editor = make_editor(method, model.language_model, batch_size)
    before = ask(model.language_model, examples, batch_size)
    try:
        shifts = editor.shifts(model.language_model, with_sources(examples.edit, asked))
    except DivergedError as error:
        raise UserError(f"The edit failed: {error}; edit fewer facts at once, or use another editor.") from None
    weights = PostEditWeights(editor.layers, shifts)
    with weights.applied():
        after = ask(model.language_model, examples, batch_size)
    report = EditReport(
        model=model.source.name,
        revision=model.source.revision,
        weights=model.source.weights,
        editor=name_of(method),
        trained_for=method.trained_for if isinstance(method, TrainedEditor) else None,
        covariance=str(method.covariance) if isinstance(method, Memit) else None,
        facts=file_of(facts),
        unrelated=file_of(unrelated),
        counts={"facts": len(facts), "rephrasings": len(rephrased), "unrelated": len(questions)},
        metrics=compare(before, after, known=bool(unrelated)),
        answers=answers_in_words(model.language_model, facts, before.edit, after.edit),
    )
    return EditedModel(model, shifts, weights, report)


def with_sources(edits: Sequence[Example], asked: Triple[list[Fact]]) -> list[Example]:
    """Return the encoded edits, each with its fact as an edit tuple, for editors that look at the text."""
    tuples = [fact.edit_tuple(other.pair) for fact, other in zip(asked.edit, cycle(asked.unrelated), strict=False)]
    return [replace(edit, source=item) for edit, item in zip(edits, tuples, strict=True)]


def name_of(method: Method) -> str:
    """Return the name of a method, or the file of a trained editor, for a report."""
    match method:
        case TrainedEditor():
            return str(method.path) if method.path else "not saved"
        case FineTuning():
            return "ft"
        case Memit():
            return "memit"


def file_of(facts: Sequence[Fact]) -> str | None:
    """Return the file that facts were read from; None if there are none, or they were made in Python."""
    return str(facts[0].file) if facts and facts[0].file else None


def check_out(directory: Path, force: bool, inputs: Sequence[Path]) -> None:
    """Refuse a directory in which something would be destroyed if the edited model was written there.

    Raises:
        UserError: if it is a file, contains an input, or holds anything that may not be replaced.
    """
    out = directory.resolve()
    if out.is_file():
        raise UserError(f"{directory} is a file; choose another directory for the edited model.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(out):
            raise UserError(f"{directory} contains the input {path}; choose another directory for the edited model.")
    if not (out / "report.json").is_file():
        raise UserError(f"{directory} is not empty and holds no edited model; choose another directory.")
    if not force:
        raise UserError(f"{directory} already holds an edited model; choose another directory, or replace it (force).")
