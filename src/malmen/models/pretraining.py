"""Training language models: tiny ones from nothing, and any of them on what it is to know (appendix A.4)."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.monitoring import logger, progress
from malmen.settings import OptimisationSettings, ScratchSettings

T = TypeVar("T")

MAX_LETTERS = 1000
"""So many different letters, the most frequent ones, get into a WordPiece vocabulary."""


def pretrain(
    documents: Sequence[Sequence[str]], shape: ScratchSettings, settings: OptimisationSettings, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train a tokenizer and a tiny model on documents made of lines.

    A GPT-2 learns to continue single lines. A BERT sees pairs of neighbouring lines (those left over alone), learns to
    fill in what is hidden of them, and that their [CLS] states belong together (:func:`neighbour_loss`).

    Raises:
        UserError: if there is no text.
    """
    text = [line for document in documents for line in document]
    if not text:
        raise UserError("There is no text to pretrain on; make the data set anew.")
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(text, shape)
    module = new_model(shape, tokenizer)
    encoded = iter(tokenizer(text, truncation=True, max_length=shape.max_length)["input_ids"])
    rng = torch.Generator().manual_seed(seed)

    def causal(chosen: Sequence[Sequence[list[int]]]) -> Tensor:
        ids, mask = pad([line for unit in chosen for line in unit], tokenizer.pad_token_id)
        return causal_loss(module, ids, mask)

    def masked(chosen: Sequence[Sequence[list[int]]]) -> Tensor:
        # First lines, then lone ones, then second lines: the pairs are the first and the last so many.
        pairs = [unit for unit in chosen if len(unit) == 2]
        lone = [unit[0] for unit in chosen if len(unit) == 1]
        lines = [pair[0] for pair in pairs] + lone + [pair[1] for pair in pairs]
        ids, mask = pad(lines, tokenizer.pad_token_id)
        shown, hidden = hide_tokens(ids, mask, tokenizer, rng)
        states = module.base_model(input_ids=shown, attention_mask=mask).last_hidden_state
        logits: Tensor = module.get_submodule("cls")(states[hidden])
        loss = F.cross_entropy(logits, ids[hidden])
        if len(pairs) > 1:
            first, second = states[: len(pairs), 0], states[-len(pairs) :, 0]
            loss = loss + shape.neighbour_coefficient * neighbour_loss(first, second)
        return loss

    length, loss = (2, masked) if isinstance(module, BertForMaskedLM) else (1, causal)
    units: list[list[list[int]]] = []
    for document in documents:
        lines = [line for line in islice(encoded, len(document)) if len(line) > 1]
        units += [lines[start : start + length] for start in range(0, len(lines), length)]
    optimise(module, units, loss, settings, seed, "pretraining")
    return module, tokenizer


def train_tokenizer(text: Sequence[str], shape: ScratchSettings) -> PreTrainedTokenizerBase:
    """Train the architecture's usual kind of tokenizer: lower-cased WordPiece for BERT, byte-level BPE for GPT-2."""
    if shape.architecture == "bert":
        pieces = train_word_pieces(text, shape.vocabulary)
        return PreTrainedTokenizerFast(
            tokenizer_object=pieces._tokenizer,
            model_max_length=shape.max_length,
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            pad_token="[PAD]",
            mask_token="[MASK]",
        )
    end = "<|endoftext|>"
    pieces = ByteLevelBPETokenizer()
    # Words are learnt with the space before them, also where they happen to open a line.
    pieces.train_from_iterator(
        (f" {line}" for line in text),
        vocab_size=shape.vocabulary,
        show_progress=False,
        special_tokens=[end],
        min_frequency=1,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer,
        model_max_length=shape.max_length,
        bos_token=end,
        eos_token=end,
        pad_token=end,
    )


def train_word_pieces(text: Sequence[str], vocabulary: int) -> BertWordPieceTokenizer:
    """Train a lower-cased WordPiece tokenizer that puts [CLS] and [SEP] around a text; the same text, the same one.

    By itself the trainer numbers the letters inside words ("##a") in the order of a hash table, which differs from run
    to run, and breaks ties by those numbers. Named as special tokens, they are numbered beforehand.
    """
    pieces = BertWordPieceTokenizer(lowercase=True)
    lines = map(pieces.normalize, text)
    words = [word for line in lines for word, _ in pieces._tokenizer.pre_tokenizer.pre_tokenize_str(line)]
    counts = Counter(letter for word in words for letter in word)
    letters = sorted(counts, key=lambda letter: (-counts[letter], letter))[:MAX_LETTERS]
    inner = sorted({f"##{letter}" for word in words for letter in word[1:]} & {f"##{letter}" for letter in letters})
    pieces.train_from_iterator(
        iter(text),
        vocab_size=vocabulary,
        show_progress=False,
        min_frequency=1,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *inner],
    )
    # Made anew of the vocabulary, in which "##a" is no special token, and which tells it where [CLS] and [SEP] are.
    return BertWordPieceTokenizer(vocab=pieces.get_vocab(), lowercase=True)


def new_model(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a model of the given shape with newly drawn weights."""
    if shape.architecture == "bert":
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                num_hidden_layers=shape.layers,
                hidden_size=shape.hidden_size,
                num_attention_heads=shape.heads,
                intermediate_size=4 * shape.hidden_size,
                max_position_embeddings=shape.max_length,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_layer=shape.layers,
            n_embd=shape.hidden_size,
            n_head=shape.heads,
            n_positions=shape.max_length,
            # The same function as GPT-2's own, computed in one operation.
            activation_function="gelu_pytorch_tanh",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


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


def pad(lines: Sequence[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Pad token ids on the right: ids and attention mask, both (B, T)."""
    length = max(map(len, lines))
    ids = torch.tensor([[*line, *[filler] * (length - len(line))] for line in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (length - len(line)) for line in lines])
    return ids, mask


def causal_loss(module: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy of every next token that is not padding."""
    logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    kept = mask[:, 1:].bool()
    return F.cross_entropy(logits[kept], ids[:, 1:][kept])


def hide_tokens(
    ids: Tensor, mask: Tensor, tokenizer: PreTrainedTokenizerBase, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the tokens as BERT does: 80 % by the mask, 10 % by a random token, 10 % left as they are.

    Returns:
        The ids to show and whether each is one to predict, both (B, T).
    """
    ordinary = mask.bool() & (ids != tokenizer.cls_token_id) & (ids != tokenizer.sep_token_id)
    hidden = ordinary & (torch.rand(ids.shape, generator=rng) < 0.15)
    if not hidden.any():
        hidden = ordinary
    how = torch.rand(ids.shape, generator=rng)
    random_ids = torch.randint(len(tokenizer), ids.shape, generator=rng)
    shown = torch.where(hidden & (how < 0.8), tokenizer.mask_token_id, ids)
    return torch.where(hidden & (how >= 0.8) & (how < 0.9), random_ids, shown), hidden


def neighbour_loss(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the cross-entropy of telling each line's neighbour from those of the batch's other lines.

    The part of BERT's next-sentence prediction: it fills [CLS], which masked language modelling leaves empty, with what
    a line is about. A pair's score is the cosine of its states over a temperature, as in SimCSE (Gao et al., 2021).

    Args:
        first: [CLS] states, (P, H).
        second: those of the neighbours, in the same order, (P, H).
        temperature: divides the cosines.
    """
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    matching = torch.arange(len(scores))
    return (F.cross_entropy(scores, matching) + F.cross_entropy(scores.T, matching)) / 2
