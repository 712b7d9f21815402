"""CounterFact's two definitions of success: whether a model prefers one of two answers to a prompt.

A prompt has a *wanted* answer and another one. Of an edit and of its equivalent prompts, the new answer is wanted and
the true one is the other; of an unrelated tuple, its stated answer is wanted and the edit's new answer is the other.

* *larger logit*, as RLEdit counts: per token of the wanted answer, whether its logit is larger than that of the other
  answer's token at the same place, both after the prompt and the wanted answer's earlier tokens. Tokens of the wanted
  answer beyond the other's end, and tokens that both answers share, do not count as successes. The number of successes
  is divided by the length of the wanted answer.
* *likelier*, as MEMIT and AlphaEdit count: whether the mean negative log-likelihood per token of the wanted answer is
  smaller than that of the other, each after its own earlier tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.runtime.ranks import ranks


@dataclass(frozen=True)
class Preferred:
    """Whether a model prefers the wanted answers of n prompts.

    Attributes:
        larger_logit: for each prompt the share of its wanted answer's tokens with the larger logit, (n,), 0..1.
        likelier: 1 where the wanted answer is the likelier one, else 0, (n,).
    """

    larger_logit: Tensor
    likelier: Tensor


def preferred(
    model: LanguageModel,
    wanted: Sequence[Example],
    others: Sequence[Example],
    batch_size: BatchSize,
    description: str = "two answers",
) -> Preferred:
    """Compare two answers to each of n prompts; each rank takes its share of the prompts.

    Args:
        model: the language model, which gives its answers as tokens.
        wanted: the prompts with the wanted answers, n.
        others: the same prompts with the other answers, n.
        batch_size: sequences run at once.
        description: what progress lines call this.

    Raises:
        DivergedError: if an output of the model is not a number.
    """
    here = ranks()
    with here.together():
        mine = preferred_here(model, here.share(wanted), here.share(others), batch_size, description)
    return Preferred(here.in_order(mine.larger_logit), here.in_order(mine.likelier))


@torch.no_grad()
def preferred_here(
    model: LanguageModel, wanted: Sequence[Example], others: Sequence[Example], batch_size: BatchSize, description: str
) -> Preferred:
    """Compare two answers as :func:`preferred` does, with its arguments and errors, on this rank alone."""
    larger = torch.zeros(len(wanted), dtype=torch.float64)

    def log_likelihoods(examples: Sequence[Example], count: bool) -> Tensor:
        """Return the mean negative log-likelihood of each example, (n,); count larger logits if asked to."""
        nll = torch.zeros(len(examples), dtype=torch.float64)

        def work(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            logits = model.answer_logits(batch)  # (R, C)
            if logits.isnan().any():
                raise DivergedError("an output of the model is not a number")
            losses = model.task.negative_log_likelihood(logits, batch.targets)
            rivals = rivals_of(batch) if count else batch.targets
            won = logits.gather(1, batch.targets.unsqueeze(1)) > logits.gather(1, rivals.unsqueeze(1))
            return batch.examples.cpu(), losses.double().cpu(), won.squeeze(1).double().cpu()

        for owners, losses, won in model.in_batches("answers", examples, batch_size, work, description):
            nll.index_add_(0, owners, losses)
            if count:
                larger.index_add_(0, owners, won)
        return nll / torch.tensor([len(example.targets) for example in examples])

    def rivals_of(batch: Batch) -> Tensor:
        """Return the other answer's token at the place of each answer row, (R,); beyond its end the row's own token."""
        rows: list[int] = []
        for i in batch.examples.unique_consecutive().tolist():
            own, other = wanted[i].targets, others[i].targets
            rows += [*other[: len(own)], *own[len(other) :]]
        return model.tensor(rows)

    likelier = log_likelihoods(wanted, count=True) < log_likelihoods(others, count=False)
    return Preferred(larger / torch.tensor([len(example.targets) for example in wanted]), likelier.double())
