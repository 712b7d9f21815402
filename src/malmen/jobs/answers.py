"""What a model answers under teacher forcing, as text: the arg max tokens that ES, GS and LS count."""

import random
from collections.abc import Callable, Sequence

from torch import Tensor

from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.evaluation import Evaluation
from malmen.editing.training import draw_equivalent
from malmen.results.answers import Answer, AnswerPart, Answers, AskedPrompt, AskedTuple

INCOMPLETE = "\ufffd"
"""The character that a tokenizer decodes from an incomplete character."""


def asked(evaluation: Evaluation, tuples: Sequence[EditTuple], seed: int) -> tuple[AskedTuple, ...]:
    """Return what an evaluation asks of its first tuples, with the answers of the unedited model.

    Args:
        evaluation: the evaluation.
        tuples: its first tuples, or all.
        seed: its seed, which draws the equivalent prompts.
    """
    before = answers(evaluation, evaluation.before.map(lambda scores: scores.predictions), slice(0, len(tuples)))
    equivalents = draw_equivalent(tuples, random.Random(seed))
    return tuple(
        AskedTuple(
            id=item.id,
            edit=prompt_of(item.edit, said.edit),
            equivalent=prompt_of(equivalent, said.equivalent),
            unrelated=prompt_of(item.unrelated, said.unrelated),
        )
        for item, equivalent, said in zip(tuples, equivalents, before, strict=True)
    )


def prompt_of(pair: PromptAnswer, before: Answer) -> AskedPrompt:
    """Return a prompt with the answer of the unedited model."""
    return AskedPrompt(prompt=pair.prompt, target=pair.answer, before=before)


def answers(evaluation: Evaluation, predictions: Triple[list[Tensor]], kept: slice) -> list[Answers]:
    """Return predictions as text.

    Args:
        evaluation: the evaluation.
        predictions: for its tuples from the place ``kept.start`` on, (A,) for each prompt.
        kept: the places of the tuples whose answers are returned; none if it ends before it starts.
    """
    model = evaluation.model
    texts = [
        [
            answer_parts(lambda tokens: model.task.text(tokens, model), prediction.tolist(), example.targets)
            for prediction, example in zip(some, examples[kept], strict=False)
        ]
        for some, examples in zip(predictions, evaluation.all, strict=True)
    ]
    return [Answers(*three) for three in zip(*texts, strict=True)]


def answer_parts(text_of: Callable[[list[int]], str], tokens: Sequence[int], targets: Sequence[int]) -> Answer:
    """Decode an answer and split it at its tokens, each right if it is the target; the parts add up to the answer."""
    found: list[AnswerPart] = []
    done, right = "", True
    for end, (token, target) in enumerate(zip(tokens, targets, strict=True), start=1):
        right = right and token == target
        text = text_of(list(tokens[:end]))
        # A character of several tokens is complete after its last token.
        if end == len(tokens) or not text.endswith(INCOMPLETE):
            found.append(AnswerPart(text=text.removeprefix(done), right=right))
            done, right = text, True
    return tuple(found)
