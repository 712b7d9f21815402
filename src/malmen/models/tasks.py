"""The tasks: how to encode an answer, which logits predict it, and how to compare them.

In *fact checking*, the answer is one logit at the first position, [CLS]. In *question answering*, it is a distribution
over the vocabulary for each token of the answer, as a decoder-only model continues the prompt. In *sequence to
sequence*, the encoder reads the prompt and the decoder outputs the answer.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from malmen.config.base import TaskName
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.encoding import UnreadableError, encode_pair, encode_text
from malmen.models.language_model import Example, LanguageModel
from malmen.models.length import Limit

FACT_LABELS = {"REFUTES": 0, "SUPPORTS": 1}


class Task(Protocol):
    """How to encode answers, compute their logits, and compare them."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode one tuple for a model."""

    def logits(self, module: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Run the model and apply its head to the given rows only: (R, C)."""

    def negative_log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target) for each row: (R, C), (R,) -> (R,)."""

    def divergence(self, before: Tensor, after: Tensor) -> Tensor:
        """Return KL(before || after) for each row: (R, C), (R, C) -> (R,)."""

    def prediction(self, logits: Tensor) -> Tensor:
        """Return the most probable answer of each row: (R, C) -> (R,)."""

    def text(self, answer: list[int], model: LanguageModel) -> str:
        """Return the predictions of an answer's A rows as text."""


class FactChecking:
    """The answer to a claim is one logit at [CLS]: the log-odds of SUPPORTS."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode the claim, without the answer; a claim that is too long loses its end.

        Raises:
            UserError: if the claim has no token or no [CLS], or the answer is neither SUPPORTS nor REFUTES.
        """
        if pair.answer not in FACT_LABELS:
            raise UserError(
                f"The answer of claim {pair.prompt!r} is {pair.answer!r}; allowed are SUPPORTS and REFUTES."
            )
        claim = encode_text(model.tokenizer, pair.prompt, closed=True, limit=model.limit)
        if not claim.own:
            raise UnreadableError(f"The claim {pair.prompt!r} has no tokens to learn; drop it from the data.")
        if claim.tokens[0] != model.tokenizer.cls_token_id:
            raise UserError(
                f"The tokenizer puts no [CLS] before the claim {pair.prompt!r}, where the answer is given; take the "
                "model's own tokenizer."
            )
        return Example(
            claim.tokens, (0,), (FACT_LABELS[pair.answer],), remark=cut_off(pair.prompt, len(claim.tokens), model)
        )

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

    def text(self, answer: list[int], model: LanguageModel) -> str:  # noqa: ARG002
        """Return the label."""
        (label,) = answer
        return {number: name for name, number in FACT_LABELS.items()}[label]


class QuestionAnswering:
    """A decoder-only model continues the prompt, in the model's form, with the answer."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode prompt and answer, joined, without the last token; position j outputs token j + 1.

        Raises:
            UnreadableError: if prompt or answer has no token, or the sequence is longer than the model reads.
        """
        joined = encode_pair(model.tokenizer, model.form.text(pair.prompt), pair.answer, model.form.separator)
        tokens, first = joined.text.tokens[:-1], joined.n_prompt - 1
        check_lengths(pair, joined.n_own and joined.n_prompt, len(joined.answer), len(tokens), model.limit)
        remark = "" if joined.is_apart else ACROSS_THE_BORDER
        return Example(tokens, tuple(range(first, len(tokens))), joined.answer, remark=remark)

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

    def text(self, answer: list[int], model: LanguageModel) -> str:
        """Return the decoded tokens, as they are."""
        return str(model.tokenizer.decode(answer, clean_up_tokenization_spaces=False))


class SequenceToSequence(QuestionAnswering):
    """The encoder reads the prompt; the decoder outputs the answer after its start token."""

    def encode(self, pair: PromptAnswer, model: LanguageModel) -> Example:
        """Encode prompt and answer; decoder position j outputs token j of the answer.

        Special tokens around an answer do not belong to it: the one before it (BART's <s>) is an input of the decoder,
        the one after it (the end of the sequence) is left out.

        Raises:
            UnreadableError: if prompt or answer has no token, or one of them is longer than the model reads.
        """
        prompt = encode_text(model.tokenizer, model.form.text(pair.prompt), closed=True)
        answer = encode_text(model.tokenizer, pair.answer, closed=True, as_target=True)
        for text, limit in ((prompt, model.limit), (answer, model.decoder_limit)):
            check_lengths(pair, len(prompt.own), len(answer.own), len(text.tokens), limit)
        decoder = (decoder_start(model.module), *answer.tokens[: answer.end - 1])
        return Example(prompt.tokens, tuple(range(answer.begin, answer.end)), answer.own, decoder_tokens=decoder)


TASKS: dict[TaskName, Task] = {
    "fact_checking": FactChecking(),
    "question_answering": QuestionAnswering(),
    "sequence_to_sequence": SequenceToSequence(),
}


ACROSS_THE_BORDER = "with its answer, the end of the prompt has other tokens than alone"
"""The remark on a prompt and an answer that share a token, or of which one changes the other's tokens."""


def cut_off(claim: str, n_tokens: int, model: LanguageModel) -> str:
    """Return a remark on a claim whose end is cut off where its ``n_tokens`` tokens fill the model; else nothing."""
    if model.limit is None or n_tokens < model.limit.tokens:
        return ""
    whole = encode_text(model.tokenizer, claim, closed=True)
    return f"only its first {n_tokens} tokens are read" if len(whole.tokens) > n_tokens else ""


def check_lengths(pair: PromptAnswer, n_prompt: int, n_answer: int, length: int, limit: Limit | None) -> None:
    """Raise :class:`UnreadableError` if a prompt or its answer has no tokens, or a sequence is longer than allowed.

    Args:
        pair: prompt and answer.
        n_prompt: number of tokens of the prompt.
        n_answer: number of tokens of the answer.
        length: number of tokens of the sequence.
        limit: how many the model reads.
    """
    if not n_answer or not n_prompt:
        raise UnreadableError(
            f"{pair.prompt!r} with answer {pair.answer!r} has no tokens to learn, or none before them; drop it from "
            "the data."
        )
    if limit is not None and length > limit.tokens:
        raise UnreadableError(f"{pair.prompt!r} with its answer has {length} tokens; the model reads {limit}; drop it.")


def decoder_start(module: Any) -> int:
    """Return the token with which an encoder-decoder's decoder begins, as transformers generates.

    Raises:
        UserError: if neither the generation settings nor the configuration name one.
    """
    settings, config = module.generation_config, module.config
    for found in (
        settings.decoder_start_token_id,
        getattr(config, "decoder_start_token_id", None),
        settings.bos_token_id,
    ):
        if isinstance(found, int):
            return found
    raise UserError(
        "The model's configuration names no decoder_start_token_id, the token with which its decoder begins; add it to "
        "config.json."
    )


def rows_of(hidden: Tensor, rows: Tensor) -> Tensor:
    """Return the hidden states (B, T, d) at ``rows``, (R,) of the B*T positions, as (R, d)."""
    return hidden.flatten(0, 1)[rows.to(hidden.device)]


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision in float32, others unchanged; any shape, which stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
