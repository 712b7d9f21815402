"""Lists of failed edits: prompts with decoded answers that are wrong after a group of edits (Tables 4 and 5)."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
"""The character that a tokenizer decodes from an incomplete character."""


def list_failures(spec: ModelSpec, editor: EditorSpec, tuples: Path, run: Run, machine: Machine) -> FailuresFile:
    """Edit the first group of a run into the model, and return the tuples with a wrong answer.

    The equivalent prompts are those of the run's evaluation.

    Args:
        spec: a model that answers questions.
        editor: the editor.
        tuples: file of the split whose first tuples are edited.
        run: the number of edits, and the seed of the equivalent prompts.
        machine: where to run.

    Raises:
        UserError: if the editor diverges, or the split has too few tuples.
    """
    model = spec.load(machine)
    group = read_enough(tuples, [run])[: run.n_edits]
    layers = spec.layers(model, editor.settings)
    evaluation = Evaluation(model, group, editor.settings.batch_size, run.seed)
    try:
        shifts = editor.make(layers, run).shifts(model, evaluation.all.edit)
    except DivergedError as error:
        what = f"{editor.settings.label} on {spec.label}"
        raise UserError(f"{what} has no failures to list: {error}; name another editor.") from None
    after = evaluation.after(layers, shifts, slice(0, run.n_edits))
    pairs = Triple(
        edit=[item.edit for item in group],
        equivalent=draw_equivalent(group, random.Random(run.seed)),
        unrelated=[item.unrelated for item in group],
    )
    columns = zip(pairs, evaluation.all, evaluation.before, after, strict=True)
    answers = zip(*(decode(model.tokenizer, *column) for column in columns), strict=True)
    answered = [
        AnsweredTuple(id=item.id, edit=edit, equivalent=equivalent, unrelated=unrelated)
        for item, (edit, equivalent, unrelated) in zip(group, answers, strict=True)
    ]
    failed = tuple(item for item in answered if item.failed)
    labels: dict[str, Any] = {"model_label": spec.label, "editor_label": editor.settings.label}
    return FailuresFile(editor=editor.name, **labels, n_edits=run.n_edits, seed=run.seed, records=failed)


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
    """Decode an answer and split it at its tokens, each right if it is the target; the parts add up to the answer."""
    found: list[AnswerPart] = []
    done, right = "", True
    for end, (token, target) in enumerate(zip(tokens, targets, strict=True), start=1):
        right = right and token == target
        text = str(tokenizer.decode(list(tokens[:end]), clean_up_tokenization_spaces=False))
        # A character of several tokens is complete after its last token.
        if end == len(tokens) or not text.endswith(INCOMPLETE):
            found.append(AnswerPart(text=text.removeprefix(done), right=right))
            done, right = text, True
    return tuple(found)
