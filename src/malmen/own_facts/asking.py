"""Asking a model questions, as ``malmen ask`` does."""

from collections.abc import Sequence

from malmen.config.base import BatchSize
from malmen.data.tuples import PromptAnswer
from malmen.editing.evaluation import score
from malmen.errors import UserError, first_line
from malmen.models.generation import continuations
from malmen.models.language_model import LanguageModel
from malmen.models.tasks import FACT_LABELS, FactChecking
from malmen.own_facts.measure import words

TOKENS = 64
"""Tokens of an answer at most, unless the user says otherwise."""


def ask_questions(
    model: LanguageModel, questions: Sequence[str], max_tokens: int = TOKENS, batch_size: BatchSize = "auto"
) -> list[str]:
    """Return a model's answers to questions, each token the most probable one; without special tokens.

    A fact checker gives its verdict on each question, which must be a claim.

    Args:
        model: the language model; questions are put into its form.
        questions: the questions.
        max_tokens: where an answer is cut off that the model does not end.
        batch_size: questions that run at once.

    Raises:
        UserError: if there is no question, one is empty, or the model cannot read or answer it.
    """
    if not questions or not all(question.strip() for question in questions):
        raise UserError("A question is empty or missing; write it in quotation marks after the model.")
    checks = isinstance(model.task, FactChecking)
    answer = next(iter(FACT_LABELS)) if checks else "a"
    examples = model.encode([PromptAnswer(question, answer) for question in questions])  # refuses what is too long
    if checks:
        return [words(model, prediction) for prediction in score(model, examples, batch_size).predictions]
    try:
        said = continuations(model, questions, [max_tokens] * len(questions), "asking", batch_size)
    except UserError:
        raise
    except Exception as error:  # Settings of generation make transformers raise errors of any kind.
        raise UserError(
            f"The model does not generate ({first_line(error)}); correct its generation_config.json."
        ) from None
    decoded = (model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in said)
    return [str(text).strip() for text in decoded]
