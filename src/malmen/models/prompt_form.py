"""The form in which a model is asked: a template around each prompt, such as a tokenizer's chat template."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from malmen.config.base import ANSWER, PROMPT, prompt_form
from malmen.errors import UserError, first_line


@dataclass(frozen=True)
class PromptForm:
    """What stands before a prompt, between it and its answer, and where the answer begins.

    Attributes:
        before: the text before the prompt.
        after: the text after the prompt, which the model continues.
        separator: white space between this text and an answer; empty if the text ends in such, or in a special token.
    """

    before: str = ""
    after: str = ""
    separator: str = " "

    @classmethod
    def named(cls, name: str, tokenizer: PreTrainedTokenizerBase) -> "PromptForm":
        """Return the form that a configuration names: "plain", "chat", or a template; errors as below."""
        if name == "plain":
            return PLAIN
        return cls.of_chat(tokenizer) if name == "chat" else cls.of_template(name)

    @classmethod
    def of_template(cls, template: str) -> "PromptForm":
        r"""Return the form of a template such as ``"Q: {prompt}\nA: {answer}"``.

        Raises:
            UserError: if it does not hold ``{prompt}`` and then ``{answer}``, each once, and the answer at its end.
        """
        try:
            prompt_form(template)
        except ValueError as error:
            raise UserError(f"The template {template!r} {error}.") from None
        before, rest = template.split(PROMPT)
        return cls(before, *apart(rest.removesuffix(ANSWER)))

    @classmethod
    def of_chat(cls, tokenizer: PreTrainedTokenizerBase) -> "PromptForm":
        """Return the form of a tokenizer's chat template: the prompt is the user's only message.

        A template that writes today's date writes :data:`DATE`.

        Raises:
            UserError: if the tokenizer has no chat template, or one that changes the user's message.
        """
        if not tokenizer.chat_template:
            raise UserError("The model's tokenizer has no chat template; give a template, or ask plainly.")
        before, after = around_message(tokenizer, "What is it?")
        if (before, after) != around_message(tokenizer, "Who was he, and where"):
            raise UserError("The model's chat template depends on the message; give a --template, or --raw.")
        return cls(before, after, before_answer(tokenizer, f"{before}What is it?{after}"))

    def __str__(self) -> str:
        return repr(f"{self.text(PROMPT)}{self.separator}{ANSWER}")

    def text(self, prompt: str) -> str:
        """Return a prompt as the model reads it, up to where its answer begins (without the separator)."""
        return f"{self.before}{prompt}{self.after}"


DATE = date(2024, 7, 26)
"""What a chat template takes for today: the date that Llama's writes where it knows none. With the real one, a training
or a run of the workflow could not go on the next day."""
TODAY, DATE_CODES = "strftime_now", ("%d", "%b", "%B", "%m", "%Y", "%y", "%A", "%a")
"""The function of transformers that gives templates the date, and what of a date they write."""
PLAIN = PromptForm()
"""The prompt as it is, one space, and the answer."""


def apart(text: str) -> tuple[str, str]:
    """Return a text up to the one space at its end, and this space: tokenizers join a space with the next word."""
    return (text[:-1], " ") if text.endswith(" ") and not text[:-1].endswith(" ") else (text, "")


def around_message(tokenizer: PreTrainedTokenizerBase, message: str) -> tuple[str, str]:
    """Return what a chat template writes before and after a user's message.

    Raises:
        UserError: if it fails, or does not write the message exactly once.
    """
    try:
        text = rendered(tokenizer, [{"role": "user", "content": message}], add_generation_prompt=True)
    except Exception as error:  # Templates raise errors of any kind.
        raise UserError(
            f"The model's chat template fails on a single question ({first_line(error)}); give a --template, or --raw."
        ) from None
    if text.count(message) != 1:
        raise UserError("The model's chat template does not write a question once; give a --template, or --raw.")
    before, after = text.split(message)
    return before, after


def before_answer(tokenizer: PreTrainedTokenizerBase, asked: str) -> str:
    """Return the white space that a chat template writes between the question ``asked`` and an answer to it."""
    answer = "It is an answer"
    conversation = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": answer}]
    try:
        whole = rendered(tokenizer, conversation)
    except Exception:
        return ""
    between = whole.removeprefix(asked).partition(answer)[0]
    return between if whole.startswith(asked) and not between.strip() else ""


def rendered(tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, str]], **options: Any) -> str:
    """Return a conversation as a tokenizer's chat template writes it."""
    template = tokenizer.get_chat_template()
    if TODAY in template:
        written = "".join(f" | replace('{code}', '{DATE.strftime(code)}')" for code in DATE_CODES)
        template = f"{{%- macro {TODAY}(format) -%}}{{{{ format{written} }}}}{{%- endmacro -%}}{template}"
    return str(tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False, **options))
