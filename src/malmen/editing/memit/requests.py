"""What MEMIT asks of a model for one edit: its prompt in several contexts, each with the subject's place in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from malmen.data.tuples import EditTuple
from malmen.editing.memit.subjects import SubjectSpan, last_token_of, locate_subject
from malmen.models.language_model import Example, LanguageModel


@dataclass(frozen=True)
class Passage:
    """An encoded text, and the position in it of the subject's last token."""

    example: Example
    position: int

    def to_subject(self) -> "Passage":
        """Return the text up to the subject's end: what follows changes nothing there."""
        return Passage(Example(self.example.tokens[: self.position + 1], (self.position,), (0,)), self.position)


@dataclass(frozen=True)
class Request:
    """One edit.

    Attributes:
        contexts: the prompt with its answer, alone and then behind each prefix; the answer rows are weighed so that
            they sum up to 1 over all contexts.
        essence: "{subject} is a", whose continuation is to stay the same; None if there is no subject.
        subject: where the subject stands in the prompt.
    """

    contexts: tuple[Passage, ...]
    essence: Passage | None
    subject: SubjectSpan


def make_request(model: LanguageModel, edit: Example, prefixes: Sequence[str]) -> Request:
    """Put an edit into contexts.

    Raises:
        ValueError: if the edit does not say which tuple it was encoded from.
        UserError: if the model's tokenizer does not tell which characters a token stands for.
    """
    if edit.source is None:
        raise ValueError("MEMIT needs the text of an edit: encode edits by encode_edits")
    subject = locate_subject(edit.source)
    weight = 1 / (len(edit.targets) * (1 + len(prefixes)))
    contexts = [in_context(model, edit.source, edit.targets, before, subject.end) for before in ("", *prefixes)]
    return Request(
        contexts=tuple(replace(passage, example=replace(passage.example, weight=weight)) for passage in contexts),
        essence=None if subject.found == "nowhere" else essence(model, edit.source, subject),
        subject=subject,
    )


def in_context(model: LanguageModel, item: EditTuple, targets: Sequence[int], prefix: str, end: int) -> Passage:
    """Encode prefix, prompt and answer; ``end`` is where the subject ends in the prompt.

    What is too long for the model loses the beginning of its prefix.
    """
    before = f"{prefix}. " if prefix else ""
    prompt, position = last_token_of(model.tokenizer, before + item.edit.prompt, len(before) + end)
    excess = max(0, len(prompt) + len(targets) - 1 - model.max_length)
    tokens = (*prompt[excess:], *targets[:-1])
    first = len(prompt) - excess - 1
    return Passage(Example(tokens, tuple(range(first, len(tokens))), tuple(targets)), position - excess)


def essence(model: LanguageModel, item: EditTuple, subject: SubjectSpan) -> Passage:
    """Encode "{subject} is a"; its one answer row is what the model goes on with."""
    name = item.edit.prompt[subject.start : subject.end]
    tokens, position = last_token_of(model.tokenizer, f"{name} is a", len(name))
    return Passage(Example(tuple(tokens), (len(tokens) - 1,), (0,)), position)
