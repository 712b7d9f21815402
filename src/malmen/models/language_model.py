"""The editors' interface to a language model: it encodes tuples, computes their answer logits, and compares logits.

The task (:mod:`malmen.models.tasks`) defines how a model answers. Editors see only rows of answer logits, each with a
target and a weight.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.architectures import TASK_OF, last_feed_forward
from malmen.config.base import BatchSize, VirtualBatches
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError
from malmen.models.activations import fuse_activations
from malmen.models.batch_sizes import sequences_at_once
from malmen.models.batching import Size, in_parts
from malmen.models.length import Limit, length_limit
from malmen.models.prompt_form import PLAIN, PromptForm
from malmen.models.text_config import text_config
from malmen.models.vocabulary import Vocabulary, ordinary_tokens
from malmen.runtime.problems import refuse_all
from malmen.runtime.progress import progress
from malmen.runtime.ranks import ranks
from malmen.runtime.text import counted

if TYPE_CHECKING:
    from malmen.models.tasks import Task

Result = TypeVar("Result")

# A loss is the mean over the answer tokens of a *virtual batch* of 32 consecutive sequences (the batch size of the
# official code), summed over virtual batches. A weight per token expresses this, so that no result depends on the
# physical batch size.
VIRTUAL_BATCH = 32


@dataclass(frozen=True)
class Example:
    """One encoded tuple.

    Attributes:
        tokens: token ids of the input (of an encoder-decoder: of its encoder), length T.
        answer_positions: positions that output the answer (of an encoder-decoder: in its decoder), length A >= 1.
        targets: the right output at each of them: a token id, or 0/1 for a claim; length A.
        weight: weight of each answer row in a loss (see :data:`VIRTUAL_BATCH`).
        decoder_tokens: token ids of an encoder-decoder's decoder; empty for other models.
        source: the edit tuple, for editors that read its text; ignored in comparisons.
        remark: what a user should know of how it was encoded; empty if nothing; ignored in comparisons.
    """

    tokens: tuple[int, ...]
    answer_positions: tuple[int, ...]
    targets: tuple[int, ...]
    weight: float = 1.0
    decoder_tokens: tuple[int, ...] = ()
    source: EditTuple | None = field(default=None, compare=False, repr=False)
    remark: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Batch:
    """B examples, padded on the right to T tokens, with their R answer rows in one list.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, both (B, T); for an encoder-decoder also ``decoder_input_ids`` and
            ``decoder_attention_mask``, (B, T'); from :meth:`LanguageModel.after` also ``position_ids`` and the
            key-value cache under the model's :attr:`~LanguageModel.cache_name`.
        answer_rows: (R,) index of each answer row among the B*T positions (of the decoder, if there is one).
        targets: (R,) token ids or 0/1.
        weights: (R,) weight of each row in a loss, in float64.
        examples: (R,) index of each row's example in the list that was batched.
        members: the examples, in the batch's order.
        everywhere: whether the last block must compute the hidden states of all positions, not only of answer rows.
    """

    inputs: dict[str, Any]
    answer_rows: Tensor
    targets: Tensor
    weights: Tensor
    examples: Tensor
    members: Sequence[Example] = ()
    everywhere: bool = False

    def attended_rows(self, in_decoder: bool = False) -> Tensor:
        """Return the indices of the non-padding positions among the B*T ones, (n,), of the encoder or the decoder."""
        return self.mask(in_decoder).flatten().nonzero().squeeze(1)

    def mask(self, in_decoder: bool = False) -> Tensor:
        """Return 1 at tokens and 0 at padding of the encoder (or the only stack), or of the decoder, (B, T)."""
        mask: Tensor = self.inputs["decoder_attention_mask" if in_decoder else "attention_mask"]
        return mask


class LanguageModel:
    """A Hugging Face model with its tokenizer and task, frozen and in evaluation mode.

    Attributes:
        module: the Hugging Face model.
        tokenizer: its tokenizer.
        task: how it answers.
        sizes: the learned batch size for each purpose and each setting of the batch size.
        caches_prompts: whether prompts run once, and their attention keys and values are cached.
        shortcuts: by name of a block, whether a model that starts after it gave the answers of a whole run.
        feed_forward: both layers of the last feed-forward network; None if the architecture is unknown.
        form: how it is asked; a fact checker reads claims as they are.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: "Task",
        form: PromptForm = PLAIN,
    ) -> None:
        self.module: PreTrainedModel = module.eval().requires_grad_(False)
        fuse_activations(module)
        self.tokenizer = tokenizer
        self.task = task
        self.form = form
        self.sizes: dict[tuple[str, BatchSize], Size] = {}
        self.caches_prompts = TASK_OF.get(module.config.model_type) == "question_answering"
        self.shortcuts: dict[str, bool] = {}
        # A model that computes its feed-forward networks in chunks of tokens has no rows to pick in them.
        chunks = getattr(self.text_config, "chunk_size_feed_forward", 0)
        blocks = 0 if chunks else getattr(self.text_config, "num_hidden_layers", 0)
        names = last_feed_forward(module.config.model_type, blocks) if blocks else None
        self.feed_forward = names and (module.get_submodule(names[0]), module.get_submodule(names[1]))

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters; for a model on several devices, that of its first part."""
        execution = getattr(getattr(self.module, "_hf_hook", None), "execution_device", None)
        return torch.device(self.module.device if execution is None else execution)

    @property
    def text_config(self) -> PretrainedConfig:
        """Return the settings of the language model: its size, length and vocabulary."""
        return text_config(self.module.config)

    @cached_property
    def limit(self) -> Limit | None:
        """Return the limit of what the model (of an encoder-decoder: its encoder) reads; None if there is none."""
        return length_limit(self.module, self.tokenizer)

    @cached_property
    def decoder_limit(self) -> Limit | None:
        """Return the limit of what an encoder-decoder's decoder reads; None if there is none."""
        return length_limit(self.module, self.tokenizer, in_decoder=True)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return how many tokens the model has rows for."""
        return Vocabulary.of(self.module)

    @cached_property
    def ordinary_tokens(self) -> Sequence[int]:
        """Return the tokens on which the model is tried before any work."""
        return ordinary_tokens(self.module, self.tokenizer, self.vocabulary.inputs)

    @cached_property
    def cache_name(self) -> str:
        """Return what transformers calls the key-value cache in the model's inputs and outputs."""
        # The new name comes with transformers 5.24; the old one goes with 5.40.
        return "cache" if "cache" in signature(type(self.module).forward).parameters else "past_key_values"

    @property
    def two_stacks(self) -> bool:
        """Return whether the model is an encoder-decoder."""
        return bool(self.module.config.is_encoder_decoder)

    def in_decoder(self, layer: nn.Module) -> bool:
        """Return whether a layer lies in the decoder of an encoder-decoder."""
        return self.two_stacks and any(layer is module for module in self.module.get_decoder().modules())

    def encode(self, pairs: Sequence[PromptAnswer], places: Sequence[str] = ()) -> list[Example]:
        """Encode tuples, with a weight for each answer row of 1 / (answer rows of their virtual batch).

        Args:
            pairs: prompts and answers.
            places: where each of them stands, for messages.

        Raises:
            UserError: if the model cannot read some of them; says which and why.
        """
        examples, problems = [], []
        for pair, place in zip(pairs, places or repeat(""), strict=False):
            try:
                examples.append(self.encode_one(pair))
            except UserError as error:
                problems.append(f"{place}: {error}" if place else str(error))
        refuse_all(problems, counted(len(pairs), "prompt"))
        return with_loss_weights(examples)

    def encode_one(self, pair: PromptAnswer) -> Example:
        """Encode one tuple; errors as in the task's ``encode``, and :class:`UserError` if a token has no row."""
        example = self.task.encode(pair, self)
        self.vocabulary.check(pair.prompt, self.tokenizer, example.tokens, example.decoder_tokens, example.targets)
        return example

    def batches(self, examples: Sequence[Example], size: BatchSize) -> Iterator[Batch]:
        """Yield physical batches of at most ``size`` examples, sorted by length to save padding."""
        order, number = by_length(examples), self.at_once(size)
        for start in range(0, len(order), number):
            yield self.collate(examples, order[start : start + number])

    def in_batches(
        self,
        purpose: str,
        examples: Sequence[Example],
        size: BatchSize,
        work: Callable[[Batch], Result],
        description: str | None = None,
    ) -> Iterator[Result]:
        """Yield the results of ``work`` for physical batches, which shrink if memory runs out.

        Long work logs its progress every 10 s.

        Args:
            purpose: purpose of the batches; each purpose learns its own batch size.
            examples: the examples, which are sorted by length to save padding.
            size: the batch size; "auto" depends on the model's size, and grows on a GPU while that is faster.
            work: called with each batch. It must change nothing before its last allocation.
            description: name of the work in progress lines; by default the purpose.

        Raises:
            DoesNotFitError: if a single example does not fit into memory.
        """
        if not examples:  # Where ranks share the work, one may have none.
            return
        new = Size.on(self.device, self.at_once(size), size == "auto")
        learned = self.sizes.setdefault((purpose, size), new)
        longest = max(sum(lengths(example)) for example in examples)
        what = f"A single sequence of up to {longest} tokens in the language model ({purpose})"

        def work_on(chosen: Sequence[int]) -> tuple[Result, int]:
            return work(self.collate(examples, chosen)), len(chosen)

        parts = in_parts(by_length(examples), learned, work_on, what, f"sequences: {purpose}")
        for result, _ in progress(
            parts, len(examples), description or purpose, weight=lambda part: part[1], unit="sequences", brief=True
        ):
            yield result

    def at_once(self, size: BatchSize) -> int:
        """Return the batch size to start with, before memory and speed are known."""
        embedding: Any = self.module.get_input_embeddings()
        # A configuration that states no size leaves it to the parts to show it.
        stacks = (len(part) for part in self.module.modules() if isinstance(part, nn.ModuleList))
        blocks = getattr(self.text_config, "num_hidden_layers", None) or max(stacks, default=1)
        width = getattr(self.text_config, "hidden_size", None) or embedding.weight.shape[1]
        usual = sequences_at_once(size, blocks, width)
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
            members=[examples[i] for i in chosen],
        )

    @property
    def padding(self) -> int:
        """Return the token that fills up sequences."""
        pad = self.tokenizer.pad_token_id or 0
        return pad if pad < self.vocabulary.inputs else 0  # A padding token may be added without a row.

    def padded(self, sequences: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pad B sequences on the right; return ``input_ids`` and ``attention_mask``, both (B, T)."""
        length, pad = max(map(len, sequences)), self.padding
        ids = [[*tokens, *[pad] * (length - len(tokens))] for tokens in sequences]
        mask = [[1] * len(tokens) + [0] * (length - len(tokens)) for tokens in sequences]
        return {"input_ids": self.tensor(ids), "attention_mask": self.tensor(mask)}

    def tensor(self, values: Sequence[Any], dtype: torch.dtype = torch.long) -> Tensor:
        """Return (nested) values as a tensor of their shape on the model's device."""
        return torch.tensor(values, dtype=dtype, device=self.device)

    def answer_logits(self, batch: Batch) -> Tensor:
        """Run the model and return the logits of the answer rows, (R, C).

        The last feed-forward network runs on these rows only, unless the batch needs hidden states everywhere.
        """
        inputs = dict(batch.inputs)
        if self.cache_name in inputs:  # A run appends to its cache, so every run gets a new one.
            inputs[self.cache_name] = DynamicCache(inputs[self.cache_name])
        with nullcontext() if batch.everywhere else self.last_feed_forward_at(batch.answer_rows):
            # A model on several devices ends on another device than it starts on.
            return self.task.logits(self.module, inputs, batch.answer_rows).to(self.device)

    def at_answers_only(self, layer: nn.Module, batch: Batch) -> bool:
        """Return whether :meth:`answer_logits` computes a layer at the batch's answer rows only, which are then (R, d).

        So it does with the output head, and with the last feed-forward network unless states are needed everywhere.
        """
        if layer is self.module.get_output_embeddings():
            return True
        return not batch.everywhere and any(layer is part for part in self.feed_forward or ())

    @contextmanager
    def last_feed_forward_at(self, rows: Tensor) -> Iterator[None]:
        """In the ``with`` block, run the last feed-forward network only at ``rows``, (R,), of the B*T positions.

        Its layers then see (R, d); its output at other positions is 0. Nothing changes for a model whose
        ``feed_forward`` is None.
        """
        shapes: list[torch.Size] = []

        def pick(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            shapes.append(inputs[0].shape)
            return inputs[0].flatten(0, 1)[rows.to(inputs[0].device)]  # (B, T, d) -> (R, d)

        def put_back(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shape = (*shapes.pop()[:-1], output.shape[-1])  # (R, d) -> (B, T, d)
            return output.new_zeros(shape).flatten(0, 1).index_copy(0, rows.to(output.device), output).view(shape)

        with ExitStack() as stack:
            if self.feed_forward:
                first, second = self.feed_forward
                stack.enter_context(first.register_forward_pre_hook(pick))
                stack.enter_context(second.register_forward_hook(put_back))
            yield

    def after_prompts(self, batch: Batch) -> Batch:
        """Return the batch from each sequence's first answer position on, with the key-value cache of the prompts."""
        if not self.caches_prompts:  # The answer rows of an encoder-decoder are those of its decoder.
            return batch
        n, length = batch.inputs["attention_mask"].shape
        answers = torch.zeros(n * length, dtype=torch.long, device=self.device)
        answers[batch.answer_rows] = 1
        return self.after(batch, answers.view(n, length).argmax(1))

    @torch.no_grad()
    def after(self, batch: Batch, first: Tensor) -> Batch:
        """Run the prefix of each sequence; return the batch of the suffixes, with the key-value cache of the prefixes.

        In a decoder-only model, later positions use only the attention keys and values of earlier ones. So a backward
        pass from a suffix, or a change in it, runs the suffix alone. Batches of other models are returned unchanged.

        Args:
            batch: whole sequences, padded to T tokens.
            first: the first position of each suffix, (B,), at or before the first answer position.
        """
        if not self.caches_prompts or first.max() == 0:
            return batch
        ids, attended = batch.inputs["input_ids"], batch.inputs["attention_mask"]  # both (B, T)
        length = ids.shape[1]
        places = torch.arange(length, device=ids.device).expand(len(ids), -1)  # (B, T)
        # The longest prefix has P tokens, the longest suffix Q. Both are padded on the right, so the cache has gaps,
        # which the attention mask excludes; position ids are those of the whole sequences.
        before = (places < first.unsqueeze(1)).long()[:, : first.max()]  # (B, P): 1 at a prefix's tokens
        within = (places[:, : (attended.sum(1) - first).max()] + first.unsqueeze(1)).clamp(max=length - 1)  # (B, Q)
        left = places[:, : within.shape[1]] < (attended.sum(1) - first).unsqueeze(1)  # (B, Q): 1 at a suffix's tokens
        owners, positions = batch.answer_rows // length, batch.answer_rows % length  # (R,), (R,)
        inputs = {
            "input_ids": ids.gather(1, within),
            "attention_mask": torch.cat((before, left.long()), dim=1),  # (B, P + Q)
            "position_ids": within,
            self.cache_name: self.keys_and_values(ids[:, : first.max()], before),
        }
        return replace(batch, inputs=inputs, answer_rows=owners * within.shape[1] + positions - first[owners])

    def keys_and_values(self, ids: Tensor, attended: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each block's attention keys and values of prefixes, both (B, heads, P, head size).

        Args:
            ids: token ids, (B, P).
            attended: 1 at tokens, 0 at padding, (B, P); a prefix may be empty.
        """
        # An empty prefix attends to its first padding, so that its values are finite; nothing attends to them later.
        attended = torch.cat((torch.ones_like(attended[:, :1]), attended[:, 1:]), dim=1)
        with self.last_feed_forward_at(self.tensor([])):
            kept = self.module.base_model(ids, attention_mask=attended, use_cache=True)[self.cache_name]
        return [(layer.keys, layer.values) for layer in kept.layers]

    def loss(self, batch: Batch) -> Tensor:
        """Return the batch's share of the negative log-likelihood (L and L_gen of the paper, equation 1): a scalar."""
        nll = self.task.negative_log_likelihood(self.answer_logits(batch), batch.targets)  # (R,)
        return (batch.weights.to(nll.dtype) * nll).sum()

    def divergence(self, batch: Batch, before: Tensor) -> Tensor:
        """Return the batch's share of L_loc (equation 1) against logits ``before`` (R, C): a scalar."""
        kl = self.task.divergence(before, self.answer_logits(batch))  # (R,)
        return (batch.weights.to(kl.dtype) * kl).sum()


def by_length(examples: Sequence[Example]) -> list[int]:
    """Return the indices of the examples, sorted by length."""
    return sorted(range(len(examples)), key=lambda i: lengths(examples[i]))


def shared(examples: Sequence[Example]) -> Sequence[Example]:
    """Return this rank's share of the examples: every R-th of them by length, so that ranks have about equal work."""
    return examples if ranks().alone else [examples[i] for i in ranks().share(by_length(examples))]


def of_all_ranks(values: Sequence[Result], examples: Sequence[Example]) -> list[Result]:
    """Return what all ranks found for the examples, in their order, of what this one found for its share.

    Args:
        values: of this rank's share, as :func:`shared` gives it; small values, no tensors of a GPU.
        examples: the examples of all ranks.
    """
    if ranks().alone:
        return list(values)
    found = dict(zip(by_length(examples), ranks().all_items(values), strict=True))
    return [found[i] for i in range(len(examples))]


def lengths(example: Example) -> tuple[int, int]:
    """Return the numbers of tokens of an example's input and decoder input."""
    return len(example.tokens), len(example.decoder_tokens)


def with_loss_weights(examples: Sequence[Example], virtual_batches: VirtualBatches = "drawn") -> list[Example]:
    """Give each example the weight 1 / (answer rows of its virtual batch of 32 examples); their order stays.

    Args:
        examples: the examples.
        virtual_batches: whether the examples are divided as they stand, or sorted by length before, longest first.
    """
    order: Sequence[int] = range(len(examples))
    if virtual_batches == "sorted":
        order = sorted(order, key=lambda i: len(examples[i].tokens), reverse=True)
    weights = [0.0] * len(examples)
    for start in range(0, len(examples), VIRTUAL_BATCH):
        virtual = order[start : start + VIRTUAL_BATCH]
        weight = 1 / sum(len(examples[i].targets) for i in virtual)
        for i in virtual:
            weights[i] = weight
    return [replace(example, weight=weight) for example, weight in zip(examples, weights, strict=True)]
