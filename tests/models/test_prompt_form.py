"""The form in which a model is asked: templates, chat templates, and the tokens that come of them."""

import pytest
from tiny_models import tiny_model

from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PLAIN, PromptForm

CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
INSTRUCT = (
    "{% for m in messages %}{% if m.role == 'user' %}[I] {{ m.content }} [/I]{% else %} {{ m.content }}{% endif %}"
    "{% endfor %}"
)


@pytest.fixture
def model() -> LanguageModel:
    return tiny_model("gpt2")


def test_a_template_says_what_stands_around_a_prompt() -> None:
    form = PromptForm.of_template("Q: {prompt}\nA: {answer}")
    assert (form.before, form.after, form.separator) == ("Q: ", "\nA:", " ")
    assert form.text("Who?") == "Q: Who?\nA:"
    assert PromptForm.of_template("{prompt} {answer}") == PLAIN
    assert PromptForm.of_template("{prompt}\n{answer}") == PromptForm("", "\n", "")


@pytest.mark.parametrize("template", ["", "{prompt}", "{answer} {prompt}", "{prompt} {prompt} {answer}", "{answer}"])
def test_a_template_without_prompt_and_answer_is_refused(template: str) -> None:
    with pytest.raises(
        UserError, match=r"must be plain, chat, or a template that holds \{prompt\} once and ends in \{answer\}"
    ):
        PromptForm.of_template(template)


def test_a_chat_template_becomes_a_form(model: LanguageModel) -> None:
    model.tokenizer.chat_template = CHAT
    assert PromptForm.of_chat(model.tokenizer) == PromptForm("<|user|>\n", "\n<|assistant|>\n", "")
    model.tokenizer.chat_template = INSTRUCT
    assert PromptForm.of_chat(model.tokenizer) == PromptForm("[I] ", " [/I]", " ")


def test_a_chat_template_that_writes_the_date_is_the_same_every_day(model: LanguageModel) -> None:
    model.tokenizer.chat_template = (
        "{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif %}{{ today }}: " + CHAT
    )
    assert PromptForm.of_chat(model.tokenizer).before == "26 Jul 2024: <|user|>\n"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no system') }}", "fails on a single question"),
        ("{{ messages[0].content | upper }}", "does not write a question once"),
        ("{{ messages[0].content }} {{ messages[0].content | length }}", "depends on the message"),
    ],
)
def test_a_chat_template_that_gives_no_form_is_refused(
    model: LanguageModel, template: str | None, sentence: str
) -> None:
    model.tokenizer.chat_template = template
    with pytest.raises(UserError, match=sentence):
        PromptForm.of_chat(model.tokenizer)


def test_the_model_reads_prompt_and_answer_in_its_form(model: LanguageModel) -> None:
    pair = PromptAnswer("who runs the farm", "old man")
    model.form = PromptForm("q: ", "\na:", " ")
    example = model.encode_one(pair)
    whole = model.tokenizer("q: who runs the farm\na: old man")["input_ids"]
    assert [*example.tokens, example.targets[-1]] == whole
    assert str(model.tokenizer.decode(list(example.targets))).strip() == "old man"
    model.form = PLAIN
    assert model.encode_one(pair).tokens != example.tokens
