"""Stricter measures beside ES, GS and LS, of a model in any state: edited in place or not.

:data:`malmen.results.rounds.MEASURES` describes each by its name. Those of decoded answers are defined in
:mod:`malmen.editing.decoded`, CounterFact's two definitions of success in :mod:`malmen.editing.two_answers`, and
perplexity in :mod:`malmen.models.perplexity`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.decoded import Decoded, decode_answers
from malmen.editing.training import draw_equivalent
from malmen.editing.two_answers import Preferred, preferred
from malmen.models.language_model import Example, LanguageModel
from malmen.models.perplexity import perplexity
from malmen.models.tasks import FactChecking

KINDS = Triple("ES", "GS", "LS")
"""What a measure is called of edits, equivalent prompts and unrelated tuples, after the name of the measure."""


@dataclass(frozen=True)
class Found:
    """What was measured of a model on some tuples.

    Attributes:
        decoded: the answers that it decoded; None if none were asked for.
        preferred: which of two answers it prefers, of the tuples whose truth is known; None if there are none.
        perplexity: its perplexity on the text; None if there is none.
    """

    decoded: Triple[Decoded] | None
    preferred: Triple[Preferred] | None
    perplexity: float | None

    def values(self, n_decoded: int, n_true: int) -> dict[str, float]:
        """Return the means over the first tuples: ``n_decoded`` decoded ones, ``n_true`` ones with a known truth."""
        parts: dict[str, Triple[Tensor]] = {}
        if self.decoded and n_decoded:
            parts["own"] = self.decoded.map(lambda kind: kind.own_correct[:n_decoded])
            parts["free"] = self.decoded.map(lambda kind: kind.free_correct[:n_decoded])
        if self.preferred and n_true:
            parts["larger_logit"] = self.preferred.map(lambda kind: kind.larger_logit[:n_true])
            parts["likelier"] = self.preferred.map(lambda kind: kind.likelier[:n_true])
        found = {
            f"{name}_{kind}": part.mean().item()
            for name, kinds in parts.items()
            for kind, part in zip(KINDS, kinds, strict=True)
        }
        return found | ({} if self.perplexity is None else {"perplexity": self.perplexity})


class StrictMeasures:
    """Measures a model as it is at each call, and compares it with the unedited model, which is measured once.

    A fact checker has none of the measures. Tuples whose truth is not known have no part in CounterFact's two
    definitions; without any other they are left out, as perplexity is without a text.

    Args:
        model: the language model, unedited now; later it is edited in place.
        items: the tuples, in the order in which they are edited.
        batch_size: sequences run at once.
        seed: of the draw of one equivalent prompt per tuple; with that of an
            :class:`~malmen.editing.evaluation.Evaluation` of the same tuples, the prompts are the same.
        text: encoded held-out text for perplexity, as :func:`malmen.models.perplexity.text_examples` encodes it.
        n_decoded: of how many tuples, the first ones, answers are decoded, which takes longest; None for all.

    Raises:
        UserError: if the model cannot read some of the prompts and answers.
        DivergedError: if an output of the model is not a number.
    """

    def __init__(
        self,
        model: LanguageModel,
        items: Sequence[EditTuple],
        batch_size: BatchSize,
        seed: int,
        text: Sequence[Example] = (),
        n_decoded: int | None = None,
    ) -> None:
        self.model, self.batch_size, self.items = model, batch_size, list(items)
        self.answers_in_text = not isinstance(model.task, FactChecking)
        self.text = list(text) if self.answers_in_text else []
        self.n_decoded = len(self.items) if n_decoded is None else min(n_decoded, len(self.items))
        self.pairs = Triple(
            [item.edit for item in self.items],
            draw_equivalent(self.items, random.Random(seed)),
            [item.unrelated for item in self.items],
        )
        if self.answers_in_text:
            self.encode()
        self.before = self.measure(len(self.items), "before the edits")

    def encode(self) -> None:
        """Encode the prompts with their right answers and, of tuples with a known truth, with the other answers."""
        ids = [item.id for item in self.items]
        self.examples = self.pairs.map(lambda kind: self.model.encode(kind, ids))
        self.true = [i for i, item in enumerate(self.items) if item.truth is not None]
        others = Triple[list[PromptAnswer]]([], [], [])
        for i in self.true:
            truth = self.items[i].truth
            assert truth is not None
            answers = truth, truth, self.items[i].edit.answer
            for kind, other, answer in zip(self.pairs, others, answers, strict=True):
                other.append(PromptAnswer(kind[i].prompt, answer))
        self.others = others.map(lambda kind: self.model.encode(kind, [ids[i] for i in self.true]))

    def of(self, n: int) -> dict[str, float]:
        """Return the measures, by name, of the model as it is now, over the first n tuples.

        Decoded answers are those of the first ``n_decoded`` tuples at most. The values of the unedited model over the
        same tuples have ``pre_`` before their names.

        Raises:
            ValueError: if n is not between 1 and the number of tuples.
            DivergedError: if an output of the model is not a number.
        """
        if not 1 <= n <= len(self.items):
            raise ValueError(f"n is {n} but must lie between 1 and {len(self.items)}")
        if not self.answers_in_text:
            return {}
        now, numbers = self.measure(n, f"after {n} edits"), (min(n, self.n_decoded), self.n_true(n))
        values = now.values(*numbers) | {f"pre_{name}": value for name, value in self.before.values(*numbers).items()}
        if now.decoded and self.before.decoded:
            after, before = now.decoded.unrelated, self.before.decoded.unrelated
            values["own_agreement"] = share_alike(after.own, before.own)
            values["free_agreement"] = share_alike(after.free, before.free)
        return values

    def n_true(self, n: int) -> int:
        """Return of how many of the first n tuples the truth is known."""
        return sum(i < n for i in self.true)

    def measure(self, n: int, when: str) -> Found:
        """Measure the model as it is over the first n tuples; ``when`` is for progress lines."""
        if not self.answers_in_text:
            return Found(None, None, None)
        decoded, likes = min(n, self.n_decoded), self.n_true(n)
        return Found(
            self.decode(decoded, when) if decoded else None,
            self.prefer(likes, when) if likes else None,
            perplexity(self.model, self.text, f"perplexity {when}") if self.text else None,
        )

    def decode(self, n: int, when: str) -> Triple[Decoded]:
        """Decode the answers of the first n tuples."""
        pairs, examples = self.pairs.map(lambda kind: kind[:n]), self.examples.map(lambda kind: kind[:n])
        return decode_answers(self.model, pairs, examples, self.batch_size, f"decoded answers {when}")

    def prefer(self, n: int, when: str) -> Triple[Preferred]:
        """Compare two answers of each of the first n tuples whose truth is known."""
        wanted = self.examples.map(lambda kind: [kind[i] for i in self.true[:n]])
        return Triple(
            *(
                preferred(self.model, mine, theirs[:n], self.batch_size, f"two answers {when}")
                for mine, theirs in zip(wanted, self.others, strict=True)
            )
        )


def share_alike(after: Sequence[object], before: Sequence[object]) -> float:
    """Return the share of items that are equal in both, of as many as the first has, 0..1."""
    return torch.tensor([a == b for a, b in zip(after, before, strict=False)], dtype=torch.float64).mean().item()
