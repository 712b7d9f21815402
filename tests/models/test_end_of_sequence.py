"""Answers that end with the end-of-sequence token."""

from dataclasses import replace

import pytest
import torch
from tiny_models import TWO_STACKS, edit_tuples, encoded_group, tiny_model

from malmen.config.base import Architecture
from malmen.errors import UserError
from malmen.models.end_of_sequence import with_end
from malmen.models.language_model import LanguageModel
from malmen.models.length import Limit


def test_a_decoder_only_model_outputs_the_end_after_the_whole_answer(gpt2: LanguageModel) -> None:
    (pair, *_) = [item.edit for item in edit_tuples("gpt2", 1)]
    (example,) = gpt2.encode([pair])
    (longer,) = with_end(gpt2, [example])
    whole = gpt2.tokenizer(f"{pair.prompt} {pair.answer}")["input_ids"]
    assert list(longer.tokens) == whole
    assert longer.targets == (*example.targets, gpt2.tokenizer.eos_token_id)
    assert longer.answer_positions == (*example.answer_positions, len(whole) - 1)
    assert replace(longer, tokens=example.tokens, targets=example.targets, answer_positions=(0,)) == replace(
        example, answer_positions=(0,)
    )


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_the_decoder_of_an_encoder_decoder_outputs_what_its_tokenizer_puts_after_a_text(
    architecture: Architecture,
) -> None:
    model = tiny_model(architecture)
    pairs = [item.edit for item in edit_tuples(architecture, 5)]
    examples = model.encode(pairs)
    for pair, example, longer in zip(pairs, examples, with_end(model, examples), strict=True):
        closed = model.tokenizer(text_target=pair.answer)["input_ids"]
        assert longer.tokens == example.tokens
        assert list(longer.decoder_tokens[1:]) == closed[:-1]
        assert list(longer.targets) == closed[-len(longer.targets) :]
        assert longer.answer_positions[-1] == len(longer.decoder_tokens) - 1


def test_the_own_tokens_of_an_answer_are_predicted_as_before(gpt2: LanguageModel) -> None:
    examples = encoded_group(gpt2, 5).edit
    for example, longer in zip(examples, with_end(gpt2, examples), strict=True):
        logits, more = (gpt2.answer_logits(gpt2.collate([one], [0])) for one in (example, longer))
        torch.testing.assert_close(more[:-1], logits)


def test_an_answer_that_cannot_end_is_refused(
    gpt2: LanguageModel, bert: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="has no end; leave out end_of_sequence"):
        with_end(bert, encoded_group(bert, 2).edit)
    edits = encoded_group(gpt2, 2).edit
    gpt2.limit = Limit(max(len(edit.tokens) for edit in edits), "its configuration")
    with pytest.raises(UserError, match="drop it, or leave out end_of_sequence"):
        with_end(gpt2, edits)
    monkeypatch.setattr(gpt2, "vocabulary", replace(gpt2.vocabulary, outputs=0))
    with pytest.raises(UserError, match="only 0 rows"):
        with_end(gpt2, edits)
    monkeypatch.setattr(gpt2.tokenizer, "eos_token", None)
    with pytest.raises(UserError, match="has no end-of-sequence token"):
        with_end(gpt2, edits)
