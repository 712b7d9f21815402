"""Measuring a model on facts, their rephrasings and unrelated questions, before and after an edit."""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import EditTuple, Triple
from malmen.editing.evaluation import Evaluation, Scores, agreement, score
from malmen.errors import DivergedError, UserError
from malmen.jobs.evaluate_editor import measure
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.models.tasks import FACT_LABELS, FactChecking
from malmen.own_facts.editors import Method, check_method, make_editor
from malmen.own_facts.facts import Fact
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.report import METRICS, Answer, EditScores


def encode(model: LanguageModel, facts: Sequence[Fact]) -> list[Example]:
    """Encode facts.

    Raises:
        UserError: if the model cannot read a fact; names its file and line.
    """
    examples = []
    for fact in facts:
        try:
            examples += model.encode([fact.pair])
        except UserError as error:
            raise UserError(f"{fact.place}: {error}") from None
    return with_loss_weights(examples)


def ask(model: LanguageModel, examples: Triple[list[Example]], batch_size: BatchSize, when: str) -> Triple[Scores]:
    """Answer facts, rephrasings and unrelated questions, each token given the right ones before it.

    Args:
        model: the language model.
        examples: the encoded questions.
        batch_size: sequences run at once.
        when: "before the edit" or "after the edit", for progress lines.
    """
    named = Triple("facts", "rephrasings", "unrelated questions")
    return Triple(
        *(
            score(model, kind, batch_size, description=f"{name} {when}") if kind else Scores(torch.empty(0), [])
            for name, kind in zip(named, examples, strict=True)
        )
    )


def compare(before: Triple[Scores], after: Triple[Scores], known: bool) -> EditScores:
    """Return the metrics of an edit; LS only if the right answers to the unrelated questions are ``known``."""
    found: dict[str, float] = {}
    for name, pre, post in zip(("ES", "GS", "LS"), before, after, strict=True):
        if len(pre.correct) and (known or name != "LS"):
            found |= {name: post.correct.mean().item(), f"pre_{name}": pre.correct.mean().item()}
    return EditScores(found | {"agreement": agreement(after.unrelated.predictions, before.unrelated.predictions)})


def answers_in_words(model: LanguageModel, facts: Sequence[Fact], before: Scores, after: Scores) -> list[Answer]:
    """Return how the model answered each fact before and after the edit."""
    return [
        Answer(fact.prompt, fact.answer, words(model, pre), words(model, post), share)
        for fact, pre, post, share in zip(
            facts, before.predictions, after.predictions, after.correct.tolist(), strict=True
        )
    ]


def words(model: LanguageModel, prediction: Tensor) -> str:
    """Return an answer, (A,), as text."""
    if isinstance(model.task, FactChecking):
        return {number: label for label, number in FACT_LABELS.items()}[int(prediction)]
    return str(model.tokenizer.decode(prediction.tolist())).strip()


def evaluate(
    model: LoadedModel,
    method: Method,
    tuples: Sequence[EditTuple],
    n_edits: int,
    max_groups: int | None,
    seed: int,
    batch_size: BatchSize,
) -> EditScores:
    """Return the mean scores of groups of edits; arguments and errors as in :func:`malmen.evaluate`."""
    check_method(method, model.source, [])
    if len(tuples) < n_edits:
        raise UserError(f"{n_edits} edits at once need as many tuples, but there are {len(tuples)}; lower n_edits.")
    tuples = tuples[: n_edits * (max_groups or len(tuples))]
    editor = make_editor(method, model.language_model, batch_size)
    evaluation = Evaluation(model.language_model, tuples, batch_size, seed)
    try:
        results = measure(editor, evaluation, n_edits, max_groups, f"groups of {n_edits} edits")
        found = [result.metrics for result in results]
    except DivergedError as error:
        raise UserError(f"An edit failed: {error}; lower n_edits, or use another editor.") from None
    return EditScores({name: fmean(metrics[name] for metrics in found) for name in found[0] if name in METRICS})
