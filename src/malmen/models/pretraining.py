"""Pretraining of tiny language models, and fine-tuning before editing (appendix A.4)."""

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import ScratchSettings
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.objectives import objective
from malmen.models.scratch import new_model, train_tokenizer
from malmen.runtime.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    Source,
    State,
    restore_rng_states,
    restore_training,
    rng_states,
    torch_sources,
    training_tensors,
)
from malmen.runtime.progress import logger, progress

T = TypeVar("T")


def pretrain(
    documents: Sequence[Sequence[str]],
    shape: ScratchSettings,
    settings: OptimisationSettings,
    seed: int,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    label: str = "the model",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train a tokenizer and a tiny model on documents (lists of lines), with the architecture's objective.

    Training resumes from the checkpoint if it holds a state; ``label`` names the model in messages.

    Raises:
        UserError: if there is no text, or the loss or its gradient is not finite.
    """
    text = [line for document in documents for line in document]
    if not text:
        raise UserError("There is no text to pretrain on; make the data set again.")
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(text, shape)
    module = new_model(shape, tokenizer)
    loss = objective(module, tokenizer, shape, seed)
    encoded = iter(tokenizer(text, truncation=True, max_length=shape.max_length)["input_ids"])
    units: list[list[list[int]]] = []
    for document in documents:
        lines = [line for line in islice(encoded, len(document)) if len(line) > 1]
        units += [lines[start : start + loss.lines] for start in range(0, len(lines), loss.lines)]
    sources = [loss.rng] if loss.rng else []
    optimise(module, units, loss, settings, seed, f"pretraining {label}", checkpoint, sources)
    return module, tokenizer


def finetune(
    model: LanguageModel,
    pairs: Sequence[PromptAnswer],
    settings: OptimisationSettings,
    seed: int,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    label: str = "the model",
) -> float:
    """Fine-tune all parameters on prompts and their answers (appendix A.4); return the model's accuracy on them.

    Training resumes from the checkpoint if it holds a state; ``label`` names the model in messages.

    Raises:
        UserError: if the loss or its gradient is not finite.
    """
    torch.manual_seed(seed)
    examples = model.encode(pairs)

    def loss(chosen: Sequence[int]) -> Tensor:
        batch = model.collate(examples, chosen)
        return model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets).mean()

    optimise(model.module, range(len(examples)), loss, settings, seed, f"fine-tuning {label}", checkpoint)
    return accuracy(model, pairs, settings.batch_size)


@torch.no_grad()
def accuracy(model: LanguageModel, pairs: Sequence[PromptAnswer], batch_size: int) -> float:
    """Return the share of right answer tokens under teacher forcing."""
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
    checkpoint: Checkpoint = NO_CHECKPOINT,
    sources: Sequence[Source] = (),
) -> None:
    """Minimise ``loss`` over shuffled minibatches of ``data`` with AdamW; then freeze the module in evaluation mode.

    Training resumes from the checkpoint if it holds a state; ``sources`` are the random generators of ``loss``, except
    torch's own.

    Raises:
        UserError: if the loss or its gradient is not finite.
    """
    module.train().requires_grad_(True)
    parameters = dict(module.named_parameters())
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    steps = settings.epochs * -(-len(data) // settings.batch_size)
    sources = [*torch_sources(), *sources]
    done: dict[str, Any] = {"steps": 0, "loss": math.nan}
    if state := checkpoint.read():
        restore_training(parameters, optimiser, state.tensors)
        restore_rng_states(sources, state.values["rng_states"])
        done = state.values["done"]
    batches = islice(minibatches(data, settings, seed), done["steps"], None)
    with checkpoint.saving(
        lambda: State(training_tensors(parameters, optimiser), {"done": done, "rng_states": rng_states(sources)})
    ) as step_taken:
        for chosen in progress(batches, steps, what, before=done["steps"], unit="steps"):
            rate = settings.learning_rate * warm_up_then_decay(done["steps"], steps)
            value = loss(chosen)
            done = {"steps": done["steps"] + 1, "loss": value.item()}
            take_step(
                parameters.values(), optimiser, rate, value, f"{what} stopped being finite at step {done['steps']}"
            )
            step_taken()
    logger.info("%s: last loss %.4f", what, done["loss"])
    module.eval().requires_grad_(False)


def take_step(
    parameters: Collection[Tensor], optimiser: torch.optim.Optimizer, rate: float, loss: Tensor, reason: str
) -> None:
    """Take a step along the gradient of ``loss``, a scalar, clipped to norm 1, with learning rate ``rate``.

    Raises:
        UserError: with the ``reason``, instead of the step, if the loss or its gradient is not finite.
    """
    optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for name, number in (("loss", loss), ("gradient", norm)):
        if not number.isfinite():
            raise UserError(f"The {name} of {reason}; lower its learning_rate.")
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def minibatches(data: Sequence[T], settings: OptimisationSettings, seed: int) -> Iterator[list[T]]:
    """Yield shuffled minibatches, epoch after epoch."""
    rng = random.Random(seed)
    for _ in range(settings.epochs):
        order = rng.sample(range(len(data)), len(data))
        for start in range(0, len(order), settings.batch_size):
            yield [data[i] for i in order[start : start + settings.batch_size]]


def warm_up_then_decay(step: int, steps: int) -> float:
    """Return the learning rate's factor: it rises linearly over the first 5 % of the steps, then falls to 0."""
    warm_up = max(1, steps // 20)
    return (step + 1) / warm_up if step < warm_up else max(0.0, (steps - step) / max(1, steps - warm_up))
