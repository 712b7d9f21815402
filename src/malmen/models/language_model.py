"""What an editor needs of a language model: encode tuples, give the logits that answer them, compare those logits.

Two tasks are told apart. In *fact checking* an answer is one logit at the first (CLS) position; in *question answering*
it is one distribution over the vocabulary at each position that outputs a token of the answer. Editors see neither:
they see rows of answer logits, with a target and a weight each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError

FACT_LABELS = {"REFUTES": 0, "SUPPORTS": 1}

# Losses are means over the answer tokens of a *virtual batch* of 32 consecutive sequences, summed over virtual batches
# (the batch size of the official code). Written as a weight per token, this makes every result independent of the
# physical batch size.
VIRTUAL_BATCH = 32


@dataclass(frozen=True)
class Example:
    """One encoded tuple.

    Attributes:
        tokens: the input's token ids, length T.
        answer_positions: positions in 0..T-1 whose output is an answer, length A >= 1.
        targets: what each of these should output: a token id, or 0/1 for a claim; length A.
        weight: the weight of each answer row in a loss (see :data:`VIRTUAL_BATCH`).
        source: the edit tuple whose edit this is, for editors that look at its text; not part of its identity.
    """

    tokens: tuple[int, ...]
    answer_positions: tuple[int, ...]
    targets: tuple[int, ...]
    weight: float = 1.0
    source: EditTuple | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Batch:
    """Examples padded to one length T on the right, with their R answer rows listed one after the other.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, both (B, T).
        answer_rows: index of each answer row among the B*T positions, (R,).
        targets: (R,) token ids or 0/1.
        weights: (R,) weight of each row in a loss, in float64.
        examples: (R,) index of the example (in the list that was batched) each row belongs to.
    """

    inputs: dict[str, Tensor]
    answer_rows: Tensor
    targets: Tensor
    weights: Tensor
    examples: Tensor

    def attended_rows(self) -> Tensor:
        """Return the index of each position that is not padding among the B*T positions."""
        return self.inputs["attention_mask"].flatten().nonzero().squeeze(1)


class Task(Protocol):
    """How answers are encoded, read off the hidden states, and compared."""

    def encode(self, pair: PromptAnswer, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example:
        """Encode one tuple as (tokens, answer positions, targets)."""

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Run the model and apply its head to the given rows only: (R, C)."""

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target) for each row: (R, C), (R,) -> (R,)."""

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return KL(before || after) for each row: (R, C), (R, C) -> (R,)."""

    def prediction(self, logits: Tensor) -> Tensor:
        """Return the most probable answer of each row: (R, C) -> (R,)."""


class FactChecking:
    """A claim is answered by one logit at CLS: the log-odds of SUPPORTS."""

    def encode(self, pair: PromptAnswer, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example:
        """Encode the claim alone; a claim that is too long loses its end, never its CLS.

        Raises:
            UserError: if the answer is neither SUPPORTS nor REFUTES.
        """
        if pair.answer not in FACT_LABELS:
            raise UserError(
                f"The answer of claim {pair.prompt!r} is {pair.answer!r}; allowed are SUPPORTS and REFUTES."
            )
        tokens = tokenizer(pair.prompt, truncation=True, max_length=max_length)["input_ids"]
        return Example(tuple(tokens), (0,), (FACT_LABELS[pair.answer],))

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Return (R, 1) log-odds."""
        hidden = module.base_model(**inputs).last_hidden_state
        logits: Tensor = module.fact_head(hidden.flatten(0, 1)[rows])
        return logits

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy of each row, in float32 at least."""
        log_odds = at_least_float32(logits).squeeze(1)
        return F.binary_cross_entropy_with_logits(log_odds, targets.to(log_odds.dtype), reduction="none")

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the KL divergence of two Bernoulli distributions given by their log-odds, in float32 at least."""
        before, after = at_least_float32(before), at_least_float32(after)
        p = before.sigmoid()
        supports = p * (F.logsigmoid(before) - F.logsigmoid(after))
        refutes = (1 - p) * (F.logsigmoid(-before) - F.logsigmoid(-after))
        return (supports + refutes).squeeze(1)

    def prediction(self, logits: Tensor) -> Tensor:
        """Return 1 where SUPPORTS is more probable."""
        return (logits.squeeze(1) > 0).long()


class QuestionAnswering:
    """A decoder-only model continues the prompt, a space, and the answer."""

    def encode(self, pair: PromptAnswer, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example:
        """Encode prompt + " " + answer without the last token; position j outputs token j + 1.

        Raises:
            UserError: if the answer has no token, or the sequence is longer than the model reads.
        """
        prompt = tokenizer(pair.prompt)["input_ids"]
        answer = tokenizer(" " + pair.answer, add_special_tokens=False)["input_ids"]
        if not answer or not prompt:
            raise UserError(
                f"{pair.prompt!r} with answer {pair.answer!r} has no tokens to learn; drop it from the data."
            )
        tokens = (*prompt, *answer[:-1])
        if len(tokens) > max_length:
            raise UserError(
                f"{pair.prompt!r} with its answer has {len(tokens)} tokens, but the model reads {max_length}; drop it."
            )
        first = len(prompt) - 1
        return Example(tokens, tuple(range(first, len(tokens))), tuple(answer))

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Return (R, vocabulary) logits; the output head sees only the rows that answer."""
        hidden = module.base_model(**inputs, use_cache=False).last_hidden_state
        logits: Tensor = module.get_output_embeddings()(hidden.flatten(0, 1)[rows])
        return logits

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each row, in float32 at least."""
        return F.cross_entropy(at_least_float32(logits), targets, reduction="none")

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the KL divergence over the vocabulary, in float32 at least."""
        log_p = at_least_float32(before).log_softmax(-1)
        log_q = at_least_float32(after).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def prediction(self, logits: Tensor) -> Tensor:
        """Return the arg max token."""
        return logits.argmax(-1)


TASKS: dict[str, Task] = {"fact_checking": FactChecking(), "question_answering": QuestionAnswering()}


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32 and leave the others alone."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class LanguageModel:
    """A Hugging Face model with its tokenizer and task, frozen and in evaluation mode.

    Attributes:
        module: the Hugging Face model.
        tokenizer: its tokenizer.
        task: how it answers.
    """

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
        self.module: PreTrainedModel = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.task = task

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        device: torch.device = self.module.device
        return device

    @property
    def max_length(self) -> int:
        """Return the longest sequence that the model reads, in tokens."""
        return int(getattr(self.module.config, "max_position_embeddings", 512))

    def encode(self, pairs: Sequence[PromptAnswer]) -> list[Example]:
        """Encode tuples and weigh their answer rows by 1 / (answer rows of their virtual batch)."""
        examples = [self.task.encode(pair, self.tokenizer, self.max_length) for pair in pairs]
        return weigh(examples)

    def batches(self, examples: Sequence[Example], size: int) -> Iterator[Batch]:
        """Yield physical batches of at most ``size`` examples, similar lengths together so that little is padding."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
        for start in range(0, len(order), size):
            yield self.collate(examples, order[start : start + size])

    def collate(self, examples: Sequence[Example], chosen: Sequence[int]) -> Batch:
        """Pad the chosen examples on the right into one batch on the model's device."""
        length = max(len(examples[i].tokens) for i in chosen)
        pad = self.tokenizer.pad_token_id or 0
        ids = [[*examples[i].tokens, *[pad] * (length - len(examples[i].tokens))] for i in chosen]
        mask = [[1] * len(examples[i].tokens) + [0] * (length - len(examples[i].tokens)) for i in chosen]
        rows = [b * length + p for b, i in enumerate(chosen) for p in examples[i].answer_positions]
        owners = [i for i in chosen for _ in examples[i].targets]

        def tensor(values: Sequence[Any], dtype: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=self.device)

        return Batch(
            inputs={"input_ids": tensor(ids), "attention_mask": tensor(mask)},
            answer_rows=tensor(rows),
            targets=tensor([t for i in chosen for t in examples[i].targets]),
            weights=tensor([examples[i].weight for i in owners], torch.float64),
            examples=tensor(owners),
        )

    def answer_logits(self, batch: Batch) -> Tensor:
        """Run the model and return the logits of the answer rows, (R, C)."""
        return self.task.logits(self.module, batch.inputs, batch.answer_rows)

    def loss(self, batch: Batch) -> Tensor:
        """Return the batch's share of the negative log-likelihood (L and L_gen of the paper, equation 1): a scalar."""
        nll = self.task.negative_log_likelihood(self.answer_logits(batch), batch.targets)
        return (batch.weights.to(nll.dtype) * nll).sum()

    def divergence(self, batch: Batch, before: Tensor) -> Tensor:
        """Return the batch's share of L_loc (equation 1) against logits ``before`` (R, C): a scalar."""
        kl = self.task.divergence(before, self.answer_logits(batch))
        return (batch.weights.to(kl.dtype) * kl).sum()


def weigh(examples: Sequence[Example]) -> list[Example]:
    """Give each example the weight 1 / (answer rows of the virtual batch of 32 in which it stands)."""
    weighed = []
    for start in range(0, len(examples), VIRTUAL_BATCH):
        virtual = examples[start : start + VIRTUAL_BATCH]
        weight = 1 / sum(len(example.targets) for example in virtual)
        weighed += [replace(example, weight=weight) for example in virtual]
    return weighed


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return every layer that holds a weight matrix applied to a hidden state (Linear or GPT-2's Conv1D), by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"}
