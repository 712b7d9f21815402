"""Editing facts into a model, all at once."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

from malmen.config.base import BatchSize
from malmen.data.parsing import key
from malmen.data.tuples import Triple
from malmen.editing.layers import PostEditWeights
from malmen.errors import DivergedError, UserError
from malmen.own_facts.by_text import ask_by_text, warn_if_far_apart
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.editors import Method, check_method, make_editor, warn_of_ignored_subjects
from malmen.own_facts.facts import GENERAL_KNOWLEDGE, Fact, read_unrelated, refuse_contradictions
from malmen.own_facts.measure import answerable, answers_in_words, ask, compare, encode
from malmen.own_facts.methods import FineTuning, Memit
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.report import EditReport
from malmen.own_facts.trained import TrainedEditor
from malmen.runtime.progress import logger


def edit_facts(
    model: LoadedModel, facts: Sequence[Fact], method: Method, unrelated: Sequence[Fact], batch_size: BatchSize
) -> EditedModel:
    """Edit facts into a model and measure it before and after; arguments and errors as in :func:`malmen.edit`.

    Without ``unrelated``, the model is asked the unrelated prompts of the facts' records. If they have none, it is
    asked questions of general knowledge, and LS is not measured.
    """
    if not facts:
        raise UserError("There are no facts to edit; give at least one.")
    refuse_contradictions(facts)
    check_method(method, model.source, facts)
    warn_of_ignored_subjects(method, facts)
    if isinstance(method, TrainedEditor) and len(facts) > (most := method.trained_for.n_edits):
        logger.warning("%d facts at once are more than the %d that the editor was trained for.", len(facts), most)
    rephrased = [other for fact in facts for other in fact.rephrased()]
    general = GENERAL_KNOWLEDGE[model.source.task]
    unrelated = list(unrelated) or carried_questions(facts)
    questions = unrelated or answerable(model.language_model, read_unrelated(general))
    asked = Triple(list(facts), rephrased, questions)
    examples = encode(model.language_model, asked)
    editor = make_editor(method, model.language_model, batch_size)
    try:
        before = ask(model.language_model, examples, batch_size, "before the edit")
    except DivergedError as error:
        raise UserError(
            f"The unedited model {model.source.name} fails: {error}; its weights may be damaged, so take another model."
        ) from None
    try:
        # Editors that look at the text find each edit's fact as an edit tuple.
        tuples = [fact.edit_tuple(other.pair) for fact, other in zip(facts, cycle(questions), strict=False)]
        edits = [replace(edit, source=item) for edit, item in zip(examples.edit, tuples, strict=True)]
        shifts = editor.shifts(model.language_model, edits)
    except DivergedError as error:
        raise UserError(f"The edit failed: {error}; edit fewer facts at once, or use another editor.") from None
    weights = PostEditWeights(editor.layers, shifts)
    with weights.applied():
        after = ask(model.language_model, examples, batch_size, "after the edit")
        by_text = None
        if model.source.task != "fact_checking":
            by_text = ask_by_text(model.language_model, facts, examples.edit)
    if by_text:
        warn_if_far_apart(by_text, after.edit)
    report = EditReport(
        model=model.source.name,
        revision=model.source.revision,
        weights=model.source.weights,
        dtype=model.source.dtype,
        editor=name_of(method),
        trained_for=method.trained_for if isinstance(method, TrainedEditor) else None,
        covariance=str(method.covariance) if isinstance(method, Memit) else None,
        facts=file_of(facts),
        unrelated=file_of(unrelated),
        read=facts[0].read,
        counts={"facts": len(facts), "rephrasings": len(rephrased), "unrelated": len(questions)},
        metrics=compare(before, after, by_text, known=bool(unrelated)),
        answers=answers_in_words(model.language_model, facts, before.edit, after.edit),
        by_text=by_text,
    )
    return EditedModel(model, shifts, weights, report)


def carried_questions(facts: Sequence[Fact]) -> list[Fact]:
    """Return the unrelated prompts of the facts' records, each once, without those that the facts edit."""
    edited = {key(prompt) for fact in facts for prompt in (fact.prompt, *fact.rephrasings)}
    different = {question.pair: question for fact in facts for question in fact.carried()}
    questions = [question for question in different.values() if key(question.prompt) not in edited]
    if different:
        note = "The unrelated questions are the %d of the facts' own records, without %d that other facts edit."
        logger.info(note, len(questions), len(different) - len(questions))
    return questions


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
