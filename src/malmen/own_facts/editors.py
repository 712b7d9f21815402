"""From the way to edit that a user chose to an editor of the model."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from torch import nn

from malmen.config.base import BatchSize
from malmen.config.finetuning import FineTuningSettings
from malmen.editing.editor import Editor
from malmen.editing.editor_file import TrainedFor
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.memit.covariance import CollectedFrom, KeyCovariance, read_header
from malmen.editing.memit.editor import MemitEditor
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel, linear_layers
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit
from malmen.own_facts.model import ModelSource
from malmen.own_facts.trained import TrainedEditor

Method: TypeAlias = TrainedEditor | FineTuning | Memit
"""A way to edit."""


def check_method(method: Method, model: ModelSource, facts: Sequence[Fact]) -> None:
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
                f"are in {model.dtype}; train an editor in this precision (dtype: {model.dtype})."
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
        collected = CollectedFrom.read(method.covariance)
        refuse_other_weights(f"{method.covariance} was collected from", collected, model, "collect it from this model")
        for fact in facts:
            if not (fact.subject or fact.rephrasings):
                raise UserError(
                    f"{fact.place}: MEMIT cannot tell what the fact is about; add its 'subject', or 'rephrasings' that "
                    "share the words of the subject with the prompt."
                )


def refuse_other_weights(what: str, made_for: TrainedFor | CollectedFrom, model: ModelSource, remedy: str) -> None:
    """Raise :class:`UserError` if an editor or a covariance was made for other weights than the model's."""
    if made_for.weights != model.weights:
        raise UserError(
            f"{what} the model {made_for.model!r}, whose weights have SHA-256 {made_for.weights[:12]}..., but those in "
            f"{model.directory} have {model.weights[:12]}...; {remedy}, or edit that one."
        )


def make_editor(method: Method, model: LanguageModel, batch_size: BatchSize) -> Editor:
    """Return the editor of a model that a method asks for.

    Args:
        method: the way to edit.
        model: the language model.
        batch_size: sequences that a trained editor runs through the model at once.

    Raises:
        UserError: if the model does not have the layers to edit.
    """
    match method:
        case TrainedEditor():
            return method.bind(model, batch_size)
        case FineTuning():
            settings = FineTuningSettings(method.epochs, method.learning_rate)
            return FineTuningEditor(
                choose_layers(model.module, method.layers, method.last_blocks), settings, method.seed
            )
        case Memit():
            _, collected = read_header(method.covariance)
            linear = linear_layers(model.module)
            layers = [EditedLayer(name, linear[name]) for name in linear if name in collected]
            return MemitEditor(layers, method.settings, KeyCovariance.open(method.covariance, layers), method.seed)


def choose_layers(module: nn.Module, patterns: Sequence[str], last_blocks: int) -> list[EditedLayer]:
    """Return the last layers that each pattern names; without patterns, those of :func:`last_of_each_block`.

    Raises:
        UserError: if a pattern names fewer than ``last_blocks`` layers.
    """
    if patterns:
        found = [layer for pattern in patterns for layer in select_layers(module, pattern, last_blocks)]
    else:
        stacks = [select_layers(module, pattern) for pattern in last_of_each_block(module)]
        found = [layer for stack in stacks for layer in stack[-last_blocks:]]
    return list({layer.name: layer for layer in found}.values())


def last_of_each_block(module: nn.Module) -> list[str]:
    """Return, for each stack of numbered blocks, a regular expression for the last linear layer of every block.

    In a Transformer that is the second layer of the feed-forward network.
    """
    stacks: dict[str, str] = {}
    for name in linear_layers(module):
        if stack := re.match(r"(.*?)\.\d+\.", name):
            parts = (r"\d+" if part.isdigit() else re.escape(part) for part in name.split("."))
            stacks[stack[1]] = r"\.".join(parts)
    return list(stacks.values())
