"""The form in which a user's model is asked: its chat template, a template of the user's, or the plain prompt."""

from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PLAIN, PromptForm
from malmen.models.tasks import FactChecking
from malmen.runtime.progress import logger


def form_of(model: LanguageModel, template: str | None = None, raw: bool = False) -> PromptForm:
    """Return the form of a model's prompts: by default its tokenizer's chat template, if it has one.

    A fact checker reads claims as they are, and an encoder-decoder prompts, unless a template is given.

    Args:
        model: the language model.
        template: a template such as ``"Q: {prompt} A: {answer}"`` in place of the default.
        raw: whether the prompt stays as it is, in spite of a chat template.

    Raises:
        UserError: if a template is malformed, or given together with ``raw`` or for a fact checker.
    """
    if template is not None and raw:
        raise UserError("--raw and --template (in Python, raw and template) exclude each other; give one of them.")
    if isinstance(model.task, FactChecking):
        if template is not None:
            raise UserError("A fact checker reads a claim as it is, without a template; leave out --template.")
        return PLAIN
    if template is not None:
        return PromptForm.of_template(template)
    chats = not model.two_stacks and model.tokenizer.chat_template
    return PromptForm.of_chat(model.tokenizer) if chats and not raw else PLAIN


def log_first(model: LanguageModel, pair: PromptAnswer) -> None:
    """Log a prompt and its answer as the model reads them, with special tokens, and the answer's tokens apart."""
    if isinstance(model.task, FactChecking):
        return
    example = model.encode_one(pair)
    prompt = example.tokens if model.two_stacks else example.tokens[: example.answer_positions[0] + 1]
    answer = " | ".join(repr(model.tokenizer.decode([token])) for token in example.targets)
    logger.info("The model reads %r and shall answer %s.", model.tokenizer.decode(list(prompt)), answer)
