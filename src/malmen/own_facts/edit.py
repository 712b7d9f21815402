"""Editing facts into a model, all at once."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

from malmen.config.base import BatchSize
from malmen.editing.memit.covariance import CollectedFrom
from malmen.errors import DivergedError, UserError
from malmen.own_facts.by_text import warn_if_far_apart
from malmen.own_facts.edit_cost import log_expected_time
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.editors import Method, check_method, make_editor, warn_of_ignored_subjects
from malmen.own_facts.facts import Fact, file_of, refuse_contradictions
from malmen.own_facts.key_covariance import with_covariance
from malmen.own_facts.methods import FineTuning, Memit
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.observe import Prompts, findings, observe
from malmen.own_facts.prompting import log_first
from malmen.own_facts.report import EditReport
from malmen.own_facts.rounds import check_rounds, edit_in_rounds
from malmen.own_facts.trained import TrainedEditor


def edit_facts(
    model: LoadedModel,
    facts: Sequence[Fact],
    method: Method,
    unrelated: Sequence[Fact],
    batch_size: BatchSize,
    rounds: int,
    measure: int | None = None,
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
    check_rounds(rounds, len(facts), method)
    prompts = Prompts.of(model, facts, unrelated, most=measure)
    log_first(model.language_model, facts[0].pair)
    if isinstance(method, Memit):
        method = with_covariance(method, model)
    editor = make_editor(method, model.language_model, batch_size)
    log_expected_time(model.language_model, editor, prompts, batch_size)
    try:
        before = observe(model.language_model, prompts, batch_size, "before the edit")
    except DivergedError as error:
        raise UserError(
            f"The unedited model {model.source.name} fails: {error}; its weights may be damaged, so take another model."
        ) from None
    try:
        # Editors that look at the text find each edit's fact as an edit tuple.
        tuples = [
            fact.edit_tuple(other.pair) for fact, other in zip(facts, cycle(prompts.asked.unrelated), strict=False)
        ]
        edits = [replace(edit, source=item) for edit, item in zip(prompts.edits, tuples, strict=True)]
        shifts, weights = edit_in_rounds(editor, model.language_model, edits, rounds)
    except DivergedError as error:
        raise UserError(f"The edit failed: {error}; edit fewer facts at once, or use another editor.") from None
    with weights.applied():
        after = observe(model.language_model, prompts, batch_size, "after the edit")
    found = findings(model.language_model, prompts, before, after)
    if found.by_text:
        warn_if_far_apart(found.by_text, after.scores.edit)
    report = EditReport(
        model=model.source.name,
        revision=model.source.revision,
        weights=model.source.weights,
        dtype=model.source.dtype,
        form=model.language_model.form,
        editor=name_of(method),
        trained_for=method.trained_for if isinstance(method, TrainedEditor) else None,
        covariance=str(method.covariance) if isinstance(method, Memit) else None,
        collected=CollectedFrom.read(method.covariance) if isinstance(method, Memit) and method.covariance else None,
        facts=file_of(facts),
        unrelated=file_of(prompts.asked.unrelated) if prompts.known else None,
        read=facts[0].read,
        rounds=rounds,
        **vars(found),
    )
    return EditedModel(model, shifts, weights, report)


def name_of(method: Method) -> str:
    """Return the name of a method, or the file of a trained editor, for a report."""
    match method:
        case TrainedEditor():
            return str(method.path) if method.path else "not saved"
        case FineTuning():
            return "ft"
        case Memit():
            return "memit"
