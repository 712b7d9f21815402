"""What an editor needs of a language model: encode tuples, give the logits that answer them, compare those logits.

How a model answers is its task (:mod:`malmen.models.tasks`). Editors do not see it: they see rows of answer logits,
with a target and a weight each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation

from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.models.batching import Size, in_parts
from malmen.settings import BatchSize
from malmen.sizes import sequences_at_once

Result = TypeVar("Result")

# Losses are means over the answer tokens of a *virtual batch* of 32 consecutive sequences, summed over virtual batches
# (the batch size of the official code). Written as a weight per token, this makes every result independent of the
# physical batch size.
VIRTUAL_BATCH = 32


@dataclass(frozen=True)
class Example:
    """One encoded tuple.

    Attributes:
        tokens: the input's token ids, length T (of the encoder, where a model has both stacks).
        answer_positions: positions whose output is an answer, length A >= 1, in 0..T-1 (of the decoder).
        targets: what each of these should output: a token id, or 0/1 for a claim; length A.
        weight: the weight of each answer row in a loss (see :data:`VIRTUAL_BATCH`).
        decoder_tokens: the input of an encoder-decoder's decoder; empty for a model of one stack.
        source: the edit tuple whose edit this is, for editors that look at its text; not part of its identity.
    """

    tokens: tuple[int, ...]
    answer_positions: tuple[int, ...]
    targets: tuple[int, ...]
    weight: float = 1.0
    decoder_tokens: tuple[int, ...] = ()
    source: EditTuple | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Batch:
    """Examples padded to one length T on the right, with their R answer rows listed one after the other.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, both (B, T); for an encoder-decoder also ``decoder_input_ids`` and
            ``decoder_attention_mask``, of a length of their own.
        answer_rows: index of each answer row among the B*T positions (of the decoder), (R,).
        targets: (R,) token ids or 0/1.
        weights: (R,) weight of each row in a loss, in float64.
        examples: (R,) index of the example (in the list that was batched) each row belongs to.
    """

    inputs: dict[str, Tensor]
    answer_rows: Tensor
    targets: Tensor
    weights: Tensor
    examples: Tensor

    @property
    def n_examples(self) -> int:
        """Return B."""
        return len(self.inputs["input_ids"])

    def attended_rows(self, in_decoder: bool = False) -> Tensor:
        """Return the index of each position that is not padding among the B*T positions (of the decoder, if so)."""
        mask = self.inputs["decoder_attention_mask" if in_decoder else "attention_mask"]
        return mask.flatten().nonzero().squeeze(1)


class Task(Protocol):
    """How answers are encoded, read off the hidden states, and compared."""

    def encode(self, pair: PromptAnswer, model: "LanguageModel") -> Example:
        """Encode one tuple for a model."""

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Run the model and apply its head to the given rows only: (R, C)."""

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target) for each row: (R, C), (R,) -> (R,)."""

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return KL(before || after) for each row: (R, C), (R, C) -> (R,)."""

    def prediction(self, logits: Tensor) -> Tensor:
        """Return the most probable answer of each row: (R, C) -> (R,)."""


class LanguageModel:
    """A Hugging Face model with its tokenizer and task, frozen and in evaluation mode.

    Attributes:
        module: the Hugging Face model.
        tokenizer: its tokenizer.
        task: how it answers.
        sizes: how many sequences are run at once, by what for and by the size that was asked for.
    """

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
        self.module: PreTrainedModel = module.eval().requires_grad_(False)
        fuse_activations(module)
        self.tokenizer = tokenizer
        self.task = task
        self.sizes: dict[tuple[str, BatchSize], Size] = {}

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        device: torch.device = self.module.device
        return device

    @property
    def max_length(self) -> int:
        """Return the longest sequence that the model reads, in tokens; T5, whose positions are relative, sets none."""
        return int(getattr(self.module.config, "max_position_embeddings", 512))

    @property
    def two_stacks(self) -> bool:
        """Return whether the model is an encoder-decoder."""
        return bool(self.module.config.is_encoder_decoder)

    def in_decoder(self, layer: nn.Module) -> bool:
        """Return whether a layer lies in the decoder of an encoder-decoder."""
        return self.two_stacks and any(layer is module for module in self.module.get_decoder().modules())

    def encode(self, pairs: Sequence[PromptAnswer]) -> list[Example]:
        """Encode tuples and weigh their answer rows by 1 / (answer rows of their virtual batch)."""
        examples = [self.task.encode(pair, self) for pair in pairs]
        return weigh(examples)

    def batches(self, examples: Sequence[Example], size: BatchSize) -> Iterator[Batch]:
        """Yield physical batches of at most ``size`` examples, similar lengths together so that little is padding."""
        order, number = by_length(examples), self.at_once(size)
        for start in range(0, len(order), number):
            yield self.collate(examples, order[start : start + number])

    def in_batches(
        self, purpose: str, examples: Sequence[Example], size: BatchSize, work: Callable[[Batch], Result]
    ) -> Iterator[Result]:
        """Yield what ``work`` makes of physical batches, which are smaller where memory runs out.

        Args:
            purpose: what is done: how large batches may be is learned for each purpose.
            examples: what is run, similar lengths together so that little is padding.
            size: how many of them at once; "auto" by the model's size, on a GPU as many more as make it faster.
            work: what is done with a batch. It must change nothing before it can no longer run out of memory.

        Raises:
            UserError: if a single example is too much.
        """
        new = Size(self.at_once(size), growing=size == "auto" and self.device.type == "cuda")
        learned = self.sizes.setdefault((purpose, size), new)
        longest = max(sum(lengths(example)) for example in examples)
        what = f"A single sequence of up to {longest} tokens in the language model ({purpose})"
        return in_parts(by_length(examples), learned, lambda chosen: work(self.collate(examples, chosen)), what)

    def at_once(self, size: BatchSize) -> int:
        """Return how many sequences are run at once, before anything is learned of memory and speed."""
        config = self.module.config
        usual = sequences_at_once(size, config.num_hidden_layers, config.hidden_size)
        return max(usual, VIRTUAL_BATCH) if size == "auto" and self.device.type == "cuda" else usual

    def collate(self, examples: Sequence[Example], chosen: Sequence[int]) -> Batch:
        """Pad the chosen examples on the right into one batch on the model's device."""
        inputs = self.padded([examples[i].tokens for i in chosen])
        if self.two_stacks:
            decoder = self.padded([examples[i].decoder_tokens for i in chosen])
            inputs |= {f"decoder_{name}": tensor for name, tensor in decoder.items()}
        length = inputs["decoder_input_ids" if self.two_stacks else "input_ids"].shape[1]
        rows = [b * length + p for b, i in enumerate(chosen) for p in examples[i].answer_positions]
        owners = [i for i in chosen for _ in examples[i].targets]
        return Batch(
            inputs=inputs,
            answer_rows=self.tensor(rows),
            targets=self.tensor([t for i in chosen for t in examples[i].targets]),
            weights=self.tensor([examples[i].weight for i in owners], torch.float64),
            examples=self.tensor(owners),
        )

    def padded(self, sequences: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of sequences padded on the right, both (B, T)."""
        length = max(map(len, sequences))
        pad = self.tokenizer.pad_token_id or 0
        ids = [[*tokens, *[pad] * (length - len(tokens))] for tokens in sequences]
        mask = [[1] * len(tokens) + [0] * (length - len(tokens)) for tokens in sequences]
        return {"input_ids": self.tensor(ids), "attention_mask": self.tensor(mask)}

    def tensor(self, values: Sequence[Any], dtype: torch.dtype = torch.long) -> Tensor:
        """Return a tensor on the model's device."""
        return torch.tensor(values, dtype=dtype, device=self.device)

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


def fuse_activations(module: nn.Module) -> None:
    """Replace the GELU of GPT-2, GPT-J and T5, written out in eight operations, by torch's one of the same values.

    It takes a third of the time, and keeps one matrix for the backward pass where the other keeps five.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))


def by_length(examples: Sequence[Example]) -> list[int]:
    """Return the indices of examples in the order of their lengths."""
    return sorted(range(len(examples)), key=lambda i: lengths(examples[i]))


def lengths(example: Example) -> tuple[int, int]:
    """Return the lengths of an example's inputs, by which examples are batched."""
    return len(example.tokens), len(example.decoder_tokens)


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
