"""What a group of edits left or made wrong: prompts with their decoded answers (appendix A.8, Tables 4 and 5)."""

from typing import ClassVar

from pydantic import PositiveInt

from malmen.results.file import ResultFile, ResultPart


class AnswerPart(ResultPart):
    """A token of an answer, or the tokens that make up one character, and whether all of it is right."""

    text: str
    right: bool


Answer = tuple[AnswerPart, ...]


def is_right(answer: Answer) -> bool:
    """Say whether an answer is right as a whole."""
    return all(part.right for part in answer)


class AnsweredPrompt(ResultPart):
    """A prompt, the answer it should have, and the answers of the unedited and of the edited model."""

    prompt: str
    target: str
    before: Answer
    after: Answer


class AnsweredTuple(ResultPart):
    """The answers to the three prompts of an edit tuple."""

    id: str
    edit: AnsweredPrompt
    equivalent: AnsweredPrompt
    unrelated: AnsweredPrompt

    @property
    def failed(self) -> bool:
        """Say whether one of the three prompts has a wrong answer after the edit."""
        return not all(is_right(answered.after) for answered in (self.edit, self.equivalent, self.unrelated))


class FailuresFile(ResultFile):
    """The tuples of one edited group that failed."""

    kind: ClassVar[str] = "failures"

    editor: str
    model_label: str
    editor_label: str
    n_edits: PositiveInt
    seed: int
    records: tuple[AnsweredTuple, ...]
