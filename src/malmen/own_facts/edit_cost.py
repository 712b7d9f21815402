"""About how long an edit and the questions before and after it will take, measured before they begin."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from malmen.config.base import BatchSize
from malmen.editing.blocks import FrozenPrefix, stack_and_number
from malmen.editing.editor import Editor
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.memit.editor import MemitEditor
from malmen.models.generation import continuations
from malmen.models.language_model import Example, LanguageModel
from malmen.models.tasks import FactChecking
from malmen.own_facts.fluency import LENGTH, OPENINGS
from malmen.own_facts.observe import Prompts
from malmen.own_facts.timing import seconds_of
from malmen.runtime.progress import clock, logger

PROBED = 8
"""Facts with which times are measured."""
TRAINING = 3
"""Forward and backward pass of a model, in forward passes."""
OVERHEAD = 2
"""What a trained editor takes besides its forward and backward pass, in forward passes."""
WORTH_SAYING = 20
"""Seconds from which on the time is said."""


def log_expected_time(model: LanguageModel, editor: Editor, prompts: Prompts, batch_size: BatchSize) -> None:
    """Log about how long the whole command will take, if it is long: to ask before and after, and to edit."""
    probed = prompts.edits[:PROBED]
    forward = warm_seconds_of(model, lambda: read(model, probed, batch_size)) / len(probed)  # of a fact
    asking = forward * sum(map(len, prompts.examples))
    if not isinstance(model.task, FactChecking):
        openings = OPENINGS[: len(probed)]
        asked = zip(prompts.examples, prompts.chosen, strict=True)
        answers = sum(len(kind[i].targets) + 1 for kind, places in asked for i in places)
        with suppress(Exception):  # A model that does not generate is told of when it is asked.
            tokens = warm_seconds_of(model, lambda: continuations(model, openings, [8] * len(openings), "", batch_size))
            asking += tokens / (8 * len(openings)) * (answers + LENGTH * len(OPENINGS))
    editing = forward * len(prompts.edits) * forward_passes(model, editor)
    if 2 * asking + editing > WORTH_SAYING:
        logger.info(
            "About %s in all: %s to ask before and after the edit (fewer questions: --measure), %s to edit.",
            clock(2 * asking + editing),
            clock(2 * asking),
            clock(editing),
        )


def forward_passes(model: LanguageModel, editor: Editor) -> float:
    """Return about how many forward passes of each fact an edit takes."""
    if isinstance(editor, FineTuningEditor):
        return 1 + TRAINING * editor.settings.epochs * share_after_prefix(model, editor)
    if isinstance(editor, MemitEditor):
        contexts = 1 + len(editor.settings.prefix_starts)
        return TRAINING * editor.settings.steps * contexts
    return TRAINING + OVERHEAD


def share_after_prefix(model: LanguageModel, editor: FineTuningEditor) -> float:
    """Return the share of the blocks that fine-tuning runs in every epoch: those from the first tuned one on."""
    blocks = getattr(model.text_config, "num_hidden_layers", None)
    frozen = None if model.two_stacks else FrozenPrefix.of(model, editor.layers).last
    place = stack_and_number(f"{frozen.name}.") if frozen else None
    return 1 - (place[1] + 1) / blocks if place and blocks else 1.0


@torch.no_grad()
def read(model: LanguageModel, examples: Sequence[Example], batch_size: BatchSize) -> None:
    """Let a model read some examples."""
    for batch in model.batches(examples, batch_size):
        model.answer_logits(batch)


def warm_seconds_of(model: LanguageModel, work: Callable[[], object]) -> float:
    """Return the time of some work once libraries are ready: it is done twice."""
    work()
    return seconds_of(model.device, work)
