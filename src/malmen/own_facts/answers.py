"""What a model answered to one prompt, before and after an edit."""

from dataclasses import dataclass

NOTHING = "(nothing)"
"""How an empty answer is shown."""


@dataclass(frozen=True)
class Answer:
    """What a model answered to a prompt. What concerns the unedited model is None if there was none.

    Special tokens are left out of all texts.

    Attributes:
        prompt: the question.
        answer: the right answer, to a fact and its rephrasings the new one.
        before: the answer of the unedited model, each token given the right tokens before it.
        after: the same of the edited model.
        correct: share of the tokens of ``after`` that are those of ``answer``, in 0..1.
        said_before: what the unedited model said by itself (a fact checker: its verdict); None if it was not asked so.
        said: the same of the edited model.
        right_before: whether the unedited model's answer is right: what it said, or else all tokens of ``before``.
        right: the same of the edited model.
        changed: whether the two answers differ, as far as the right answer is long.
    """

    prompt: str
    answer: str
    before: str | None
    after: str
    correct: float
    said_before: str | None
    said: str | None
    right_before: bool | None
    right: bool
    changed: bool | None

    @property
    def shown_before(self) -> str | None:
        """Return the answer of the unedited model as it is shown; None if there was none."""
        return None if self.before is None else as_shown(self.said_before, self.before)

    @property
    def shown(self) -> str:
        """Return the answer of the edited model as it is shown."""
        return as_shown(self.said, self.after)


def as_shown(said: str | None, token_by_token: str) -> str:
    """Return what a model said by itself, or in brackets what it answered token by token."""
    return (said or NOTHING) if said is not None else f"[{token_by_token or NOTHING}]"
