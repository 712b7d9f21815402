"""Looking at a model: its answers, its perplexity on ordinary text and what it writes by itself; and comparing two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import Triple
from malmen.editing.evaluation import Scores
from malmen.errors import UserError, first_line
from malmen.models.language_model import Example, LanguageModel
from malmen.models.perplexity import text_perplexity
from malmen.models.tasks import FactChecking
from malmen.own_facts.answers import Answer
from malmen.own_facts.by_text import SEED, Said, ask_by_text, sample
from malmen.own_facts.facts import Fact, carried_questions, general_questions
from malmen.own_facts.fluency import OPENINGS, Written, write_freely
from malmen.own_facts.health import Generation, Health, judge
from malmen.own_facts.measure import answerable, ask, compare, encode, words
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.ordinary_text import OrdinaryText
from malmen.own_facts.report import AskedByText, Findings
from malmen.runtime.progress import logger

Item = TypeVar("Item")


@dataclass(frozen=True)
class Prompts:
    """What models are asked, alike before and after an edit.

    Attributes:
        edits: all facts that are edited, encoded.
        counts: number of all facts, rephrasings and unrelated questions, whether they are asked or not.
        asked: facts, rephrasings and unrelated questions that are asked.
        examples: the same, encoded.
        chosen: places of those that are asked by text alone, too.
        text: ordinary text for perplexity.
        known: whether the right answers to the unrelated questions are known to the model; else LS is left out.
    """

    edits: list[Example]
    counts: dict[str, int]
    asked: Triple[list[Fact]]
    examples: Triple[list[Example]]
    chosen: Triple[list[int]]
    text: OrdinaryText
    known: bool

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        facts: Sequence[Fact],
        unrelated: Sequence[Fact],
        text: OrdinaryText | None = None,
        most: int | None = None,
    ) -> "Prompts":
        """Return the prompts of facts.

        Args:
            model: the model.
            facts: the facts.
            unrelated: unrelated questions; if there are none, those of the facts' own records, and if these have none,
                questions of general knowledge.
            text: ordinary text; by default the built-in one.
            most: how many facts, rephrasings and unrelated questions are asked at most; by default all are.

        Raises:
            UserError: if the model cannot read some of them; names all, by file and line.
        """
        rephrased = [other for fact in facts for other in fact.rephrased()]
        given = list(unrelated) or carried_questions(facts)
        general = general_questions(model.source.task, facts)
        questions = given or answerable(model.language_model, general)
        everything = Triple(list(facts), rephrased, questions)
        encoded = encode(model.language_model, everything)
        places = everything.map(lambda kind: sample(len(kind), len(kind) if most is None else most))
        asked, examples = chosen_of(everything, places), chosen_of(encoded, places)
        chosen = asked.map(lambda kind: sample(len(kind)))
        counts = dict(zip(("facts", "rephrasings", "unrelated"), map(len, everything), strict=True))
        return cls(encoded.edit, counts, asked, examples, chosen, text or OrdinaryText.read(), bool(given))


def chosen_of(kinds: Triple[list[Item]], places: Triple[list[int]]) -> Triple[list[Item]]:
    """Return the items of each kind at its places."""
    return Triple(*([kind[i] for i in chosen] for kind, chosen in zip(kinds, places, strict=True)))


@dataclass(frozen=True)
class Observed:
    """How a model answered.

    Attributes:
        scores: answers to all prompts, each token given the right ones before it.
        said: what it said by itself to those that were asked so; None if it does not generate.
        written: what it wrote by itself; None if it does not generate.
        perplexity: perplexity on ordinary text; None for a fact checker.
    """

    scores: Triple[Scores]
    said: Triple[dict[int, Said]] | None
    written: Written | None
    perplexity: float | None


def observe(model: LanguageModel, prompts: Prompts, batch_size: BatchSize, when: str) -> Observed:
    """Ask a model.

    Args:
        model: the language model.
        prompts: what it is asked.
        batch_size: sequences run at once.
        when: "before the edit" or "after the edit", for progress lines.

    Raises:
        DivergedError: if an output is not a number.
    """
    scores = ask(model, prompts.examples, batch_size, when)
    said, written = None, None
    if not isinstance(model.task, FactChecking):
        try:
            said = ask_by_text(model, prompts.asked, prompts.examples, prompts.chosen, when, batch_size)
            written = write_freely(model, when, batch_size)
        except UserError:
            raise
        except Exception as error:  # Settings of generation make transformers raise errors of any kind.
            logger.warning(
                "The model was not asked by text alone %s, because it does not generate (%s).", when, first_line(error)
            )
            said, written = None, None
    return Observed(scores, said, written, text_perplexity(model, prompts.text.text, when))


def findings(model: LanguageModel, prompts: Prompts, before: Observed | None, after: Observed) -> Findings:
    """Return what is found of an edited model, compared with the unedited one if that was asked, too."""
    freely = after.said is not None and (before is None or before.said is not None)
    answers = Triple(*(answers_in_words(model, prompts, kind, before, after, freely) for kind in range(3)))
    health = health_of(model, prompts, before, after, answers, freely)
    by_text = AskedByText(SEED, prompts.chosen.edit, health.facts_asked, health.facts_right) if freely else None
    return Findings(
        verdict=judge(health),
        counts=prompts.counts,
        metrics=compare(
            before.scores if before else None, after.scores, by_text, health.facts_right_before, prompts.known
        ),
        health=health,
        answers=answers.edit,
        answers_to_rephrasings=answers.equivalent,
        answers_to_unrelated=answers.unrelated,
        by_text=by_text,
    )


def health_of(
    model: LanguageModel,
    prompts: Prompts,
    before: Observed | None,
    after: Observed,
    answers: Triple[list[Answer]],
    freely: bool,
) -> Health:
    """Count what the verdict rests on: answers by text alone, or all answers of a model that does not generate."""
    facts, unrelated = answers.edit, answers.unrelated
    if freely:
        facts = [facts[i] for i in prompts.chosen.edit]
        unrelated = [unrelated[i] for i in prompts.chosen.unrelated]
    then, now = before.written if before else None, after.written
    texts = zip(OPENINGS, then.texts if then else (None,) * len(OPENINGS), now.texts if now else [], strict=False)
    return Health(
        freely=freely,
        facts_asked=len(facts),
        facts_right=sum(answer.right for answer in facts),
        facts_right_before=sum(bool(answer.right_before) for answer in facts) if before else None,
        unrelated_asked=len(unrelated),
        unrelated_changed=sum(bool(answer.changed) for answer in unrelated) if before else None,
        perplexity=after.perplexity,
        perplexity_before=before.perplexity if before else None,
        text=prompts.text.file,
        text_sha256=prompts.text.sha256,
        vocabulary=model.vocabulary.outputs,
        entropy=now.entropy if now else None,
        entropy_before=then.entropy if then else None,
        generations=[Generation(*texts_of_one) for texts_of_one in texts],
    )


def answers_in_words(
    model: LanguageModel, prompts: Prompts, kind: int, before: Observed | None, after: Observed, freely: bool
) -> list[Answer]:
    """Return how a model answered each prompt of a kind (0: facts, 1: rephrasings, 2: unrelated questions).

    ``freely`` says whether what it said by itself counts where it was asked so.
    """
    post, pre = after.scores[kind], before.scores[kind] if before else None
    said = after.said[kind] if freely and after.said else {}
    said_before = before.said[kind] if freely and before and before.said else {}
    checks = isinstance(model.task, FactChecking)
    answers = []
    for i, fact in enumerate(prompts.asked[kind]):
        now, then = said.get(i), said_before.get(i)
        text, correct = words(model, post.predictions[i]), post.correct[i].item()
        text_before = words(model, pre.predictions[i]) if pre else None
        answers.append(
            Answer(
                prompt=fact.prompt,
                answer=fact.answer,
                before=text_before,
                after=text,
                correct=correct,
                said_before=then.text if then else text_before if checks else None,
                said=now.text if now else text if checks else None,
                right_before=(then.right if then else pre.correct[i].item() == 1) if pre else None,
                right=now.right if now else correct == 1,
                changed=differ(now, then, post.predictions[i], pre.predictions[i]) if pre else None,
            )
        )
    return answers


def differ(now: Said | None, then: Said | None, after: Tensor, before: Tensor) -> bool:
    """Return whether an answer changed: the beginning of what was said, or else any predicted token, both (A,)."""
    if now and then:
        return now.beginning != then.beginning
    return not torch.equal(after, before)
