"""Measuring a model on facts, their rephrasings and unrelated questions, before and after an edit."""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import EditTuple, Triple
from malmen.editing.editor import Editor
from malmen.editing.evaluation import Evaluation, Scores, agreement, score
from malmen.errors import DivergedError, UserError
from malmen.jobs.evaluate_editor import measure
from malmen.models.encoding import UnreadableError
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.models.tasks import ACROSS_THE_BORDER, FactChecking, QuestionAnswering
from malmen.own_facts.editors import Method, check_method, make_editor
from malmen.own_facts.facts import Fact
from malmen.own_facts.key_covariance import with_covariance
from malmen.own_facts.methods import Memit
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.report import METRICS, AskedByText, EditScores
from malmen.runtime.problems import refuse_all
from malmen.runtime.progress import logger
from malmen.runtime.text import counted, first_few, short_repr

ASKED = Triple("facts", "rephrasings", "unrelated questions")
"""What a model is asked."""


def encode(model: LanguageModel, asked: Triple[list[Fact]]) -> Triple[list[Example]]:
    """Encode facts, rephrasings and unrelated questions; warn of those that a user's prompt does not quite match.

    Raises:
        UserError: if the model cannot read some of them, or cannot give a fact's answer; names all, by file and line.
    """
    problems: list[str] = []
    encoded = Triple[list[Example]]([], [], [])
    for facts, examples in zip(asked, encoded, strict=True):
        for fact in facts:
            try:
                examples.append(model.encode_one(fact.pair))
                if facts is asked.edit:
                    refuse_unknown(model, examples[-1], fact.answer)
            except UserError as error:
                problems.append(f"{fact.place}: {error}")
    refuse_all(problems or alike(model, asked.edit, encoded.edit), counted(sum(map(len, asked)), "prompt"))
    for what, facts, examples in zip(ASKED, asked, encoded, strict=True):
        warn_of_remarks(what, facts, examples)
    return encoded.map(with_loss_weights)


def alike(model: LanguageModel, facts: Sequence[Fact], examples: Sequence[Example]) -> list[str]:
    """Return a sentence for each fact whose prompt has the tokens of an earlier one's, but another answer.

    Tokenizers may drop case and accents, and have one token for all that they do not know; claims may be cut off.
    """
    first: dict[tuple[int, ...], tuple[Fact, tuple[int, ...]]] = {}
    found = []
    for fact, example in zip(facts, examples, strict=True):
        if example.remark == ACROSS_THE_BORDER:  # the last tokens of the prompt belong to the answer
            continue
        continued = isinstance(model.task, QuestionAnswering) and not model.two_stacks
        prompt = example.tokens[: example.answer_positions[0] + 1] if continued else example.tokens
        earlier, targets = first.setdefault(prompt, (fact, example.targets))
        if targets != example.targets:
            found.append(
                f"{fact.place}: to the model's tokenizer the prompt {short_repr(fact.prompt)} is the same as "
                f"{short_repr(earlier.prompt)} in {earlier.place}, whose answer is another; keep one of them."
            )
    return found


def refuse_unknown(model: LanguageModel, example: Example, answer: str) -> None:
    """Raise :class:`UserError` if an answer has characters without a token, or special tokens alone."""
    if isinstance(model.task, FactChecking):
        return
    unknown, targets = model.tokenizer.unk_token, list(example.targets)
    has_unknown = unknown in model.tokenizer.convert_ids_to_tokens(targets) and unknown not in answer
    if (
        any(special in answer for special in model.tokenizer.all_special_tokens)
        and not str(model.tokenizer.decode(targets, skip_special_tokens=True)).strip()
    ):
        raise UserError(f"the answer {answer!r} has special tokens alone, which nobody sees; write an answer in words.")
    if has_unknown or not str(model.tokenizer.decode(targets)).strip():
        raise UserError(
            f"the tokenizer has no token for a part of the answer {answer!r}, so the model cannot give it; write the "
            "answer in other characters."
        )


def warn_of_remarks(what: str, facts: Sequence[Fact], examples: Sequence[Example]) -> None:
    """Log for each remark on encoded facts how many have it, and which."""
    places: dict[str, list[str]] = {}
    for fact, example in zip(facts, examples, strict=True):
        if example.remark:
            places.setdefault(example.remark, []).append(fact.where or repr(fact.prompt))
    for remark, where in places.items():
        logger.warning("Of %d of %d %s, %s: %s.", len(where), len(facts), what, remark, first_few(where, 10))


def answerable(model: LanguageModel, questions: Sequence[Fact]) -> list[Fact]:
    """Return those of the package's own questions that the model can read; log how many it cannot.

    Raises:
        UserError: if it can read none.
    """
    kept = [question for question in questions if is_readable(model, question)]
    if not kept:
        raise UserError(
            f"None of the {len(questions)} built-in questions fits the model, which reads {model.limit} tokens; give "
            "questions of your own with --unrelated (in Python, unrelated=...)."
        )
    if left_out := len(questions) - len(kept):
        logger.warning(
            "%d of the %d built-in questions do not fit the model, which reads %s tokens, and are not asked; "
            "--unrelated gives questions of your own.",
            left_out,
            len(questions),
            model.limit,
        )
    return kept


def is_readable(model: LanguageModel, question: Fact) -> bool:
    """Return whether the model can read a question with its answer."""
    try:
        model.encode_one(question.pair)
    except UnreadableError:
        return False
    return True


def ask(model: LanguageModel, examples: Triple[list[Example]], batch_size: BatchSize, when: str) -> Triple[Scores]:
    """Answer facts, rephrasings and unrelated questions, each token given the right ones before it.

    Args:
        model: the language model.
        examples: the encoded questions.
        batch_size: sequences run at once.
        when: "before the edit" or "after the edit", for progress lines.
    """
    return Triple(
        *(
            score(model, kind, batch_size, description=f"{name} {when}") if kind else Scores(torch.empty(0), [])
            for name, kind in zip(ASKED, examples, strict=True)
        )
    )


def compare(
    before: Triple[Scores] | None,
    after: Triple[Scores],
    by_text: AskedByText | None,
    right_before: int | None,
    known: bool,
) -> EditScores:
    """Return the metrics of an edit.

    Args:
        before: the scores of the unedited model, if there is one.
        after: the scores of the edited model.
        by_text: how many facts the edited model answered by text alone.
        right_before: how many of them the unedited one did.
        known: whether the right answers to the unrelated questions are known; without them there is no LS.
    """
    found: dict[str, float] = {}
    for name, pre, post in zip(("ES", "GS", "LS"), before or (None,) * 3, after, strict=True):
        if len(post.correct) and (known or name != "LS"):
            found |= {name: post.correct.mean().item()}
            found |= {f"pre_{name}": pre.correct.mean().item()} if pre else {}
    if before:
        found["agreement"] = agreement(after.unrelated.predictions, before.unrelated.predictions)
    if by_text:
        found["by_text"] = by_text.share
        found |= {} if right_before is None else {"pre_by_text": right_before / by_text.asked}
    return EditScores(found)


def words(model: LanguageModel, prediction: Tensor) -> str:
    """Return an answer, (A,), as text, without special tokens."""
    tokens = prediction.tolist()
    if isinstance(model.task, FactChecking):
        return model.task.text(tokens, model)
    decoded = model.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(decoded).strip()


def evaluate(
    model: LoadedModel,
    method: Method | Editor,
    tuples: Sequence[EditTuple],
    n_edits: int,
    max_groups: int | None,
    seed: int,
    batch_size: BatchSize,
) -> EditScores:
    """Return the mean scores of groups of edits; arguments and errors as in :func:`malmen.evaluate`."""
    check_method(method, model.source, [])
    if isinstance(method, Memit):
        method = with_covariance(method, model)
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
