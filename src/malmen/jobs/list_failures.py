"""Listing what a group of edits left or made wrong: prompts with their decoded answers (Tables 4 and 5)."""

import random
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from malmen.data.tuples import PromptAnswer, Triple
from malmen.editing.evaluation import Evaluation, Scores
from malmen.editing.training import draw_equivalent
from malmen.errors import DivergedError, UserError
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.jobs.editor_spec import EditorSpec
from malmen.models.language_model import Example
from malmen.results.failures import AnsweredPrompt, AnsweredTuple, AnswerPart, FailuresFile
from malmen.results.run import Run

INCOMPLETE = "\ufffd"
"""What a decoder writes for a byte that is only a part of a character."""


def list_failures(spec: ModelSpec, editor: EditorSpec, tuples: Path, run: Run, machine: Machine) -> FailuresFile:
    """Edit the first group of a run into the model, and return the tuples that have a wrong answer then.

    The equivalent prompts are those on which the same run was measured.

    Args:
        spec: the model, one that answers questions.
        editor: the editor.
        tuples: the split whose first tuples are edited.
        run: the number of edits, and the seed of the draw of equivalent prompts.
        machine: where to run.

    Raises:
        UserError: if the editor diverges, or the split has fewer tuples.
    """
    model, label = spec.load(machine), editor.settings.label
    group = read_enough(tuples, [run])[: run.n_edits]
    layers = spec.layers(model, editor.settings)
    evaluation = Evaluation(model, group, editor.settings.batch_size, run.seed)
    try:
        shifts = editor.make(layers, run).shifts(model, evaluation.all.edit)
    except DivergedError as error:
        raise UserError(f"{label} on {spec.label} has no failures to list: {error}; name another editor.") from None
    after = evaluation.after(layers, shifts, slice(0, run.n_edits))
    pairs = Triple(
        edit=[item.edit for item in group],
        equivalent=draw_equivalent(group, random.Random(run.seed)),
        unrelated=[item.unrelated for item in group],
    )
    answers = Triple(
        *(
            decode(model.tokenizer, *columns)
            for columns in zip(pairs, evaluation.all, evaluation.before, after, strict=True)
        )
    )
    answered = [
        AnsweredTuple(id=item.id, edit=edit, equivalent=equivalent, unrelated=unrelated)
        for item, edit, equivalent, unrelated in zip(group, *answers, strict=True)
    ]
    return FailuresFile(
        editor=editor.name,
        model_label=spec.label,
        editor_label=label,
        n_edits=run.n_edits,
        seed=run.seed,
        records=tuple(item for item in answered if item.failed),
    )


def decode(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PromptAnswer],
    examples: Sequence[Example],
    before: Scores,
    after: Scores,
) -> list[AnsweredPrompt]:
    """Decode the answers to prompts of one kind, before and after the edit."""
    return [
        AnsweredPrompt(
            prompt=pair.prompt,
            target=pair.answer,
            before=answer_parts(tokenizer, answer_before.tolist(), example.targets),
            after=answer_parts(tokenizer, answer_after.tolist(), example.targets),
        )
        for pair, example, answer_before, answer_after in zip(
            pairs, examples, before.predictions, after.predictions, strict=True
        )
    ]


def answer_parts(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], targets: Sequence[int]
) -> tuple[AnswerPart, ...]:
    """Decode an answer and cut it at its tokens, each right if it is the target; joined, they are the whole answer."""
    found: list[AnswerPart] = []
    done, right = "", True
    for end, (token, target) in enumerate(zip(tokens, targets, strict=True), start=1):
        right = right and token == target
        text = str(tokenizer.decode(list(tokens[:end]), clean_up_tokenization_spaces=False))
        # A character of several tokens is complete only with its last one.
        if end == len(tokens) or not text.endswith(INCOMPLETE):
            found.append(AnswerPart(text=text.removeprefix(done), right=right))
            done, right = text, True
    return tuple(found)
