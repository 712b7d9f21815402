"""Perplexity of texts, against transformers alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_models import edit_tuples, tiny_model

from malmen.data.tuples import PromptAnswer
from malmen.models.perplexity import text_perplexity, windows

PROMPTS = [item.edit.prompt for item in edit_tuples("gpt2", 28)]


def test_perplexity_is_that_of_windows_of_the_text() -> None:
    model = tiny_model("gpt2")
    text = " ".join(PROMPTS)
    assert model.limit
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    width, losses = model.limit.tokens + 1, []
    for start in range(0, len(ids), width):
        window = torch.tensor([ids[start : start + width]])
        with torch.no_grad():
            logits = model.module(input_ids=window[:, :-1]).logits[0]
        losses += F.cross_entropy(logits, window[0, 1:], reduction="none").tolist()
    expected = math.exp(sum(losses) / len(losses))
    assert len(ids) > 2 * width and len(losses) == len(ids) - -(-len(ids) // width)
    assert text_perplexity(model, text, "now") == pytest.approx(expected)


def test_windows_begin_as_the_model_reads_texts() -> None:
    model = tiny_model("bart")  # It puts <s> before a text.
    assert {window.tokens[0] for window in windows(model, " ".join(PROMPTS))} == {model.tokenizer.bos_token_id}


def test_an_encoder_decoder_predicts_second_halves_and_a_fact_checker_nothing() -> None:
    text = "Ada Lund wrote a song. Cleo wrote it? x"
    model = tiny_model("t5")
    found = text_perplexity(model, text, "now")
    halves = PromptAnswer("Ada Lund", "wrote a song."), PromptAnswer("Cleo", "wrote it?")
    examples = [model.encode_one(pair) for pair in halves]
    (batch,) = model.batches(examples, 2)
    losses = model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets)
    assert found == pytest.approx(losses.mean().exp().item())
    assert text_perplexity(tiny_model("bert"), text, "now") is None
