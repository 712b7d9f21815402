"""What MEMIT optimises for one edit: its prompt in several contexts, each with the position of the subject."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from malmen.data.tuples import EditTuple
from malmen.editing.memit.subjects import SubjectSpan, first_token_of, last_token_before, locate_subject
from malmen.models.encoding import encode_pair, encode_text
from malmen.models.language_model import Example, LanguageModel


@dataclass(frozen=True)
class Passage:
    """An encoded text, and the position in it of the subject's last token."""

    example: Example
    position: int

    def to_subject(self) -> "Passage":
        """Return the text up to the subject's end, which what follows cannot change."""
        return Passage(Example(self.example.tokens[: self.position + 1], (self.position,), (0,)), self.position)


@dataclass(frozen=True)
class Request:
    """One edit.

    Attributes:
        contexts: the prompt with its answer, alone and then after each prefix; the weights of all answer rows sum to 1.
        essence: "{subject} is a", whose continuation must not change; None if no subject was found.
        subject: where the subject is in the prompt.
    """

    contexts: tuple[Passage, ...]
    essence: Passage | None
    subject: SubjectSpan


def make_request(model: LanguageModel, edit: Example, prefixes: Sequence[str]) -> Request:
    """Put an edit into contexts.

    Raises:
        ValueError: if the edit has no ``source``.
        UserError: if the model's tokenizer cannot map tokens to characters.
    """
    if edit.source is None:
        raise ValueError("MEMIT needs the text of an edit: encode edits with encode_edits")
    subject = locate_subject(edit.source)
    contexts = [in_context(model, edit.source, before, subject.end) for before in ("", *prefixes)]
    return Request(
        contexts=tuple(share_weight(passage, len(contexts)) for passage in contexts),
        essence=None if subject.found == "nowhere" else essence(model, edit.source, subject),
        subject=subject,
    )


def share_weight(passage: Passage, n_contexts: int) -> Passage:
    """Give each answer row of one of ``n_contexts`` contexts its weight."""
    weight = 1 / (len(passage.example.targets) * n_contexts)
    return replace(passage, example=replace(passage.example, weight=weight))


def in_context(model: LanguageModel, item: EditTuple, prefix: str, end: int) -> Passage:
    """Encode prefix, prompt and answer; ``end`` is where the subject ends in the prompt.

    If the text is too long for the model, the beginning of the prefix is cut off.
    """
    before, form = f"{prefix}. " if prefix else "", model.form
    prompt = form.text(before + item.edit.prompt)
    joined = encode_pair(model.tokenizer, prompt, item.edit.answer, form.separator, with_spans=True)
    text, most = joined.text, model.limit
    excess = max(0, len(text.tokens) - 1 - most.tokens) if most else 0
    kept = first_token_of(text, len(form.before))
    tokens = (*text.tokens[:kept], *text.tokens[kept + excess : -1])
    first = joined.n_prompt - 1 - excess
    position = last_token_before(text, len(form.before) + len(before) + end) - excess
    return Passage(Example(tokens, tuple(range(first, len(tokens))), joined.answer), position)


def essence(model: LanguageModel, item: EditTuple, subject: SubjectSpan) -> Passage:
    """Encode "{subject} is a"; its one answer row is the next token."""
    name = item.edit.prompt[subject.start : subject.end]
    text = encode_text(model.tokenizer, f"{name} is a", with_spans=True)
    return Passage(Example(text.tokens, (len(text.tokens) - 1,), (0,)), last_token_before(text, len(name)))
