"""The tasks: how to encode an answer, which logits predict it, and how to compare them.

In *fact checking*, the answer is one logit at the first position, [CLS]. In *question answering*, it is a distribution
over the vocabulary for each token of the answer, as a decoder-only model continues the prompt. In *sequence to
sequence*, the encoder reads the prompt and the decoder outputs the answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from malmen.config.base import TaskName
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import Example, LanguageModel, Task

FACT_LABELS = {"REFUTES": 0, "SUPPORTS": 1}


class FactChecking:
    """The answer to a claim is one logit at [CLS]: the log-odds of SUPPORTS."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode the claim, without the answer; a claim that is too long loses its end.

        Raises:
            UserError: if the claim has no token, or the answer is neither SUPPORTS nor REFUTES.
        """
        if pair.answer not in FACT_LABELS:
            raise UserError(
                f"The answer of claim {pair.prompt!r} is {pair.answer!r}; allowed are SUPPORTS and REFUTES."
            )
        limits = {"truncation": True, "max_length": model.max_length}
        claim = model.tokenizer(pair.prompt, **limits, return_special_tokens_mask=True)
        if not own_positions(claim):
            raise UserError(f"The claim {pair.prompt!r} has no tokens to learn; drop it from the data.")
        return Example(tuple(claim["input_ids"]), (0,), (FACT_LABELS[pair.answer],))

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Return the log-odds at ``rows``, (R,) of the B*T positions: (R, 1)."""
        hidden = module.base_model(**inputs).last_hidden_state
        logits: Tensor = module.fact_head(rows_of(hidden, rows))
        return logits

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy of each row: (R, 1), (R,) -> (R,), in float32 at least."""
        log_odds = at_least_float32(logits).squeeze(1)
        return F.binary_cross_entropy_with_logits(log_odds, targets.to(log_odds.dtype), reduction="none")

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return KL(before || after) of each row's Bernoulli distribution: (R, 1), (R, 1) -> (R,); at least float32."""
        before, after = at_least_float32(before), at_least_float32(after)
        p = before.sigmoid()
        supports = p * (F.logsigmoid(before) - F.logsigmoid(after))
        refutes = (1 - p) * (F.logsigmoid(-before) - F.logsigmoid(-after))
        return (supports + refutes).squeeze(1)

    def prediction(self, logits: Tensor) -> Tensor:
        """Return 1 where SUPPORTS is more probable, else 0: (R, 1) -> (R,)."""
        return (logits.squeeze(1) > 0).long()


class QuestionAnswering:
    """A decoder-only model continues the prompt with a space and the answer."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode prompt + " " + answer without the last token; position j outputs token j + 1.

        Raises:
            UserError: if the answer has no token, or the sequence is longer than the model reads.
        """
        prompt = model.tokenizer(pair.prompt)["input_ids"]
        answer = model.tokenizer(" " + pair.answer, add_special_tokens=False)["input_ids"]
        tokens = (*prompt, *answer[:-1])
        check_lengths(pair, prompt, answer, len(tokens), model.max_length)
        first = len(prompt) - 1
        return Example(tokens, tuple(range(first, len(tokens))), tuple(answer))

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Return the logits at ``rows``, (R,) of the B*T positions: (R, vocabulary); the output head sees no others.

        The model's own operations before and after the head, such as T5's scaling, still apply.
        """
        head = module.get_output_embeddings()
        with head.register_forward_pre_hook(lambda _, inputs: rows_of(inputs[0], rows)):
            logits: Tensor = module(**inputs, use_cache=False).logits
        return logits

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each row: (R, C), (R,) -> (R,), in float32 at least."""
        return F.cross_entropy(at_least_float32(logits), targets, reduction="none")

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return KL(before || after) of each row: (R, C), (R, C) -> (R,), in float32 at least."""
        log_p = at_least_float32(before).log_softmax(-1)
        log_q = at_least_float32(after).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def prediction(self, logits: Tensor) -> Tensor:
        """Return the most probable token of each row: (R, C) -> (R,)."""
        return logits.argmax(-1)


class SequenceToSequence(QuestionAnswering):
    """The encoder reads the prompt; the decoder outputs the answer after its start token."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode prompt and answer; decoder position j outputs token j of the answer.

        Special tokens around an answer do not belong to it: the one before it (BART's <s>) is an input of the decoder,
        the one after it (the end of the sequence) is left out.

        Raises:
            UserError: if the answer has no token, or a sequence is longer than the model reads.
        """
        asked, whole = (model.tokenizer(text, return_special_tokens_mask=True) for text in (pair.prompt, pair.answer))
        prompt, tokens, positions = asked["input_ids"], whole["input_ids"], own_positions(whole)
        answer = [tokens[i] for i in positions]
        check_lengths(pair, own_positions(asked), answer, max(len(prompt), len(tokens)), model.max_length)
        decoder = (model.module.config.decoder_start_token_id, *tokens[: positions[-1]])
        return Example(tuple(prompt), tuple(positions), tuple(answer), decoder_tokens=decoder)


TASKS: dict[TaskName, Task] = {
    "fact_checking": FactChecking(),
    "question_answering": QuestionAnswering(),
    "sequence_to_sequence": SequenceToSequence(),
}


def own_positions(encoded: Any) -> list[int]:
    """Return the positions of a text's tokens without the tokenizer's special tokens."""
    return [i for i, special in enumerate(encoded["special_tokens_mask"]) if not special]


def check_lengths(pair: PromptAnswer, prompt: Sequence[int], answer: Sequence[int], length: int, allowed: int) -> None:
    """Raise :class:`UserError` if a prompt or its answer has no tokens, or both together exceed ``allowed`` tokens."""
    if not answer or not prompt:
        raise UserError(f"{pair.prompt!r} with answer {pair.answer!r} has no tokens to learn; drop it from the data.")
    if length > allowed:
        raise UserError(f"{pair.prompt!r} with its answer has {length} tokens; the model reads {allowed}; drop it.")


def rows_of(hidden: Tensor, rows: Tensor) -> Tensor:
    """Return the hidden states (B, T, d) at ``rows``, (R,) of the B*T positions, as (R, d)."""
    return hidden.flatten(0, 1)[rows.to(hidden.device)]


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision in float32, others unchanged; any shape, which stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
