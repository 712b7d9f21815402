"""Free greedy decoding, against transformers alone."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import edit_tuples, tiny_model

from malmen.config.base import Architecture
from malmen.models import generation
from malmen.models.encoding import encode_text
from malmen.models.generation import beginning, continuations, text_of
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PromptForm

PROMPTS = [item.edit.prompt for item in edit_tuples("gpt2", 28)]


def alone(model: LanguageModel, prompt: str, number: int) -> list[int]:
    """Return what a model says to one prompt alone."""
    ids = torch.tensor([encode_text(model.tokenizer, prompt, closed=model.two_stacks).tokens])
    module: Any = model.module
    output = module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=number)
    return list(output[0, 1 if model.two_stacks else ids.shape[1] :].tolist())


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bart"])
def test_prompts_in_batches_are_answered_as_alone(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    wanted = [3 + i % 4 for i in range(len(PROMPTS))]
    said = continuations(model, PROMPTS, wanted, "asking")
    assert len(set(map(tuple, said))) > 3
    ends = model.module.generation_config.eos_token_id
    for prompt, number, tokens in zip(PROMPTS, wanted, said, strict=True):
        expected = alone(model, prompt, number + 1)
        expected = expected[1:] if expected[:1] == generation.decoder_prefix(model) else expected
        end = expected.index(ends) if ends in expected else len(expected)
        assert tokens == expected[: min(end, number)]


def test_a_model_that_takes_padding_for_text_is_asked_prompts_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    assert generation.bears_padding(model)
    expected = continuations(model, PROMPTS, [5] * len(PROMPTS), "asking")
    careful = generation.left_padded

    def careless(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        inputs = careful(model, prompts)
        return inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}

    monkeypatch.setattr(generation, "left_padded", careless)
    assert not generation.bears_padding(model)
    assert continuations(model, PROMPTS, [5] * len(PROMPTS), "asking", 7) == expected


def test_an_answer_ends_where_the_model_ends_it() -> None:
    model = tiny_model("gpt2")
    first, second, *_ = continuations(model, PROMPTS[:1], [6], "asking")[0]
    model.module.generation_config.eos_token_id = [second, 10**6]
    assert continuations(model, PROMPTS[:1], [6], "asking") == [[first]]
    model.module.generation_config.eos_token_id = first
    assert continuations(model, PROMPTS[:1], [6], "asking") == [[]]
    assert text_of(model, []) == ""


def test_a_prompt_near_the_limit_is_answered_as_far_as_the_model_reads() -> None:
    model = tiny_model("gpt2")
    assert model.limit
    prompt = PROMPTS[0]
    while len(encode_text(model.tokenizer, f"{prompt} a").tokens) <= model.limit.tokens:
        prompt += " a"
    assert 1 <= len(continuations(model, [prompt], [20], "asking")[0]) < 20


def test_the_beginning_is_where_the_answer_must_lie() -> None:
    model = tiny_model("gpt2")
    tokens = model.tokenizer("New Dunmore by the Sea\nAda Lund")["input_ids"]
    assert beginning(model, tokens, 2) == text_of(model, tokens[:2])
    model.form = PromptForm("q: ", "\na:", " ")
    assert beginning(model, tokens, 2) == "New Dunmore by the Sea" != text_of(model, tokens[:8])


def test_special_tokens_are_never_shown() -> None:
    model = tiny_model("gpt2")
    special = model.tokenizer.all_special_ids[0]
    assert text_of(model, [special, *model.tokenizer(" Ada Lund")["input_ids"], special]) == "Ada Lund"
