"""From the way to edit that a user chose to an editor of the model."""

from collections.abc import Sequence
from typing import TypeAlias

from malmen.config.base import BatchSize
from malmen.config.finetuning import FineTuningSettings
from malmen.editing.editor import Editor
from malmen.editing.editor_file import TrainedFor
from malmen.editing.feed_forward import choose_layers
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import CollectedFrom, KeyCovariance, read_header
from malmen.editing.memit.editor import MemitEditor
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers
from malmen.models.prompt_form import PLAIN, PromptForm
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit
from malmen.own_facts.model import ModelSource
from malmen.own_facts.trained import TrainedEditor
from malmen.own_facts.usual_settings import usual_tuning_rate
from malmen.runtime.problems import refuse_all
from malmen.runtime.progress import logger
from malmen.runtime.text import counted, short_repr

LEARNED = 0.1
"""The loss of every minibatch below which fine-tuning ends: all facts are learned, and more would harm the model."""
Method: TypeAlias = TrainedEditor | FineTuning | Memit
"""A way to edit."""


def check_method(method: Method | Editor, model: ModelSource, facts: Sequence[Fact]) -> None:
    """Check, before the model is loaded, that a method can edit these facts into it.

    Raises:
        UserError: if a trained editor is for other weights, another precision or another task; or if the model of MEMIT
            does not continue prompts, its covariance was collected from another one, or it cannot tell what a fact is
            about.
    """
    if isinstance(method, TrainedEditor):
        trained, what = method.trained_for, method.path or "The editor"
        refuse_other_weights(f"{what} was trained for", trained, model, "train an editor for this model")
        if trained.dtype != model.dtype:
            raise UserError(
                f"{what} was trained for {trained.model!r} in {trained.dtype}, but the weights in {model.directory} "
                f"are edited in {model.dtype}; load them in {trained.dtype} (--dtype, or dtype= in Python), or train "
                f"an editor in {model.dtype}."
            )
        if trained.task != model.task:
            raise UserError(
                f"{what} was trained for the task {trained.task!r}, not {model.task!r}; leave out the task."
            )
    if isinstance(method, Memit):
        if model.task != "question_answering":
            raise UserError(
                f"MEMIT edits models that continue a prompt, but {model.directory} holds one for {model.task!r}; use "
                "another editor."
            )
        if method.covariance:
            what, collected = f"{method.covariance} was collected from", CollectedFrom.read(method.covariance)
            refuse_other_weights(what, collected, model, "collect it from this model")
        elif method.text and not method.text.is_file():
            raise UserError(f"There is no text {method.text}; give a file of ordinary text, one text a line.")
        problems = [problem for fact in facts if (problem := trouble_with_subject(fact))]
        refuse_all(problems, counted(len(facts), "fact"))


def trouble_with_subject(fact: Fact) -> str | None:
    """Say why MEMIT cannot tell what a fact is about; None if it can."""
    share = "'rephrasings' that share the words of the subject with the prompt"
    if fact.subject and not fact.stated_subject:
        return (
            f"{fact.place}: the prompt {short_repr(fact.prompt)} does not contain the subject "
            f"{short_repr(fact.subject)}; write the subject as the prompt does, or leave it out and give {share}."
        )
    if not (fact.subject or fact.rephrasings):
        return f"{fact.place}: MEMIT cannot tell what the fact is about; add its 'subject', or {share}."
    return None


def warn_of_ignored_subjects(method: Method, facts: Sequence[Fact]) -> None:
    """Count the subjects that are not part of their prompts where the method does not use subjects."""
    n_misplaced = sum(fact.subject != fact.stated_subject for fact in facts)
    if n_misplaced and not isinstance(method, Memit):
        logger.warning(
            "%s not part of the prompt and ignored, since only MEMIT uses subjects.",
            counted(n_misplaced, "subject is", "subjects are"),
        )


def refuse_other_weights(what: str, made_for: TrainedFor | CollectedFrom, model: ModelSource, remedy: str) -> None:
    """Raise :class:`UserError` if an editor or a covariance was made for other weights than the model's."""
    if made_for.weights != model.weights:
        raise UserError(
            f"{what} the model {made_for.model!r}, whose weights have SHA-256 {made_for.weights[:12]}..., but those in "
            f"{model.directory} have {model.weights[:12]}...; {remedy}, or edit that one."
        )


def form_for(method: Method | Editor, model: LanguageModel) -> PromptForm:
    """Return how a method asks a model: as in the training of an editor, else as the model is asked."""
    return method.trained_for.form or PLAIN if isinstance(method, TrainedEditor) else model.form


def make_editor(method: Method | Editor, model: LanguageModel, batch_size: BatchSize) -> Editor:
    """Return the editor of a model that a method asks for.

    Args:
        method: the way to edit; an editor of the model's layers stays as it is.
        model: the language model.
        batch_size: sequences that a trained editor runs through the model at once.

    Raises:
        UserError: if the model does not have the layers to edit.
    """
    match method:
        case TrainedEditor():
            trained = method.bind(model, batch_size)
            check_layers(model, trained.layers, trained.settings.tokens)
            return trained
        case FineTuning():
            settings = FineTuningSettings(method.epochs, method.learning_rate or usual_tuning_rate(model))
            layers = choose_layers(model, method.layers, method.last_blocks)
            return FineTuningEditor(layers, settings, method.seed, LEARNED)
        case Memit():
            assert method.covariance is not None  # with_covariance
            _, collected = read_header(method.covariance)
            linear = linear_layers(model.module)
            layers = [EditedLayer(name, linear[name]) for name in linear if name in collected]
            check_layers(model, layers, "all")
            return MemitEditor(layers, method.settings, KeyCovariance.open(method.covariance, layers), method.seed)
        case _:
            return method
