"""The form in which a user's model is asked unless the user says otherwise."""

import pytest
from tiny_models import tiny_model

from malmen.config.base import Architecture
from malmen.errors import UserError
from malmen.models.prompt_form import PLAIN, PromptForm
from malmen.own_facts.prompting import form_of

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"


def test_a_chat_template_is_taken_unless_the_user_says_otherwise() -> None:
    model = tiny_model("gpt2")
    assert form_of(model) == PLAIN
    model.tokenizer.chat_template = CHAT
    assert form_of(model).text("Who?") == "<user>Who?<me>"
    assert form_of(model, raw=True) == PLAIN
    assert form_of(model, "Q: {prompt} A: {answer}") == PromptForm("Q: ", " A:", " ")
    with pytest.raises(UserError, match="exclude each other"):
        form_of(model, "Q: {prompt} A: {answer}", raw=True)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_only_models_that_continue_prompts_chat(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    model.tokenizer.chat_template = CHAT
    assert form_of(model) == PLAIN


def test_a_fact_checker_reads_claims_as_they_are() -> None:
    with pytest.raises(UserError, match="without a template"):
        form_of(tiny_model("bert"), "Is it true? {prompt} {answer}")
    assert form_of(tiny_model("t5"), "ask: {prompt} {answer}") == PromptForm("ask: ", "", " ")
