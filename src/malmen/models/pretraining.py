"""Training language models: tiny ones from nothing, and any of them on what it is to know (appendix A.4)."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.objectives import objective
from malmen.models.scratch import new_model, train_tokenizer
from malmen.monitoring import logger, progress
from malmen.settings import OptimisationSettings, ScratchSettings

T = TypeVar("T")


def pretrain(
    documents: Sequence[Sequence[str]], shape: ScratchSettings, settings: OptimisationSettings, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train a tokenizer and a tiny model on documents made of lines, by the architecture's objective.

    Raises:
        UserError: if there is no text.
    """
    text = [line for document in documents for line in document]
    if not text:
        raise UserError("There is no text to pretrain on; make the data set anew.")
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(text, shape)
    module = new_model(shape, tokenizer)
    loss = objective(module, tokenizer, shape, seed)
    encoded = iter(tokenizer(text, truncation=True, max_length=shape.max_length)["input_ids"])
    units: list[list[list[int]]] = []
    for document in documents:
        lines = [line for line in islice(encoded, len(document)) if len(line) > 1]
        units += [lines[start : start + loss.lines] for start in range(0, len(lines), loss.lines)]
    optimise(module, units, loss, settings, seed, "pretraining")
    return module, tokenizer


def teach(model: LanguageModel, pairs: Sequence[PromptAnswer], settings: OptimisationSettings, seed: int) -> float:
    """Fine-tune all parameters on prompts and their answers; return the share of answer tokens it then gets right.

    On claims this makes a BERT a fact checker (appendix A.4); on questions it gives a tiny model something to know.
    """
    torch.manual_seed(seed)
    examples = model.encode(pairs)

    def loss(chosen: Sequence[int]) -> Tensor:
        batch = model.collate(examples, chosen)
        return model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets).mean()

    optimise(model.module, range(len(examples)), loss, settings, seed, "teaching")
    return accuracy(model, pairs, settings.batch_size)


@torch.no_grad()
def accuracy(model: LanguageModel, pairs: Sequence[PromptAnswer], batch_size: int) -> float:
    """Return the share of answer tokens that the model gets right under teacher forcing."""
    hits: list[Tensor] = []
    for batch in model.batches(model.encode(pairs), batch_size):
        hits.append(model.task.prediction(model.answer_logits(batch)) == batch.targets)
    return torch.cat(hits).double().mean().item()


def optimise(
    module: PreTrainedModel,
    data: Sequence[T],
    loss: Callable[[Sequence[T]], Tensor],
    settings: OptimisationSettings,
    seed: int,
    what: str,
) -> None:
    """Minimise ``loss`` over shuffled minibatches of ``data`` with AdamW; leave the module frozen, evaluating.

    Raises:
        UserError: if the loss stops being finite.
    """
    module.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    steps = settings.epochs * -(-len(data) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_up_then_decay(step, steps))
    for step, chosen in enumerate(progress(minibatches(data, settings, seed), steps, what), start=1):
        value = loss(chosen)
        if not value.isfinite():
            raise UserError(f"The loss of {what} stopped being finite at step {step}; lower its learning_rate.")
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    logger.info("%s: last loss %.4f", what, value.item())
    module.eval().requires_grad_(False)


def minibatches(data: Sequence[T], settings: OptimisationSettings, seed: int) -> Iterator[list[T]]:
    """Yield shuffled minibatches, epoch after epoch."""
    rng = random.Random(seed)
    for _ in range(settings.epochs):
        order = rng.sample(range(len(data)), len(data))
        for start in range(0, len(order), settings.batch_size):
            yield [data[i] for i in order[start : start + settings.batch_size]]


def warm_up_then_decay(step: int, steps: int) -> float:
    """Return the learning rate's factor: up linearly over the first 5 % of the steps, down linearly to 0 at the end."""
    warm_up = max(1, steps // 20)
    return (step + 1) / warm_up if step < warm_up else max(0.0, (steps - step) / max(1, steps - warm_up))
