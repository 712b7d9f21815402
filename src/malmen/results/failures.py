"""What a group of edits left or made wrong: prompts with their decoded answers (appendix A.8, Tables 4 and 5)."""

from typing import ClassVar, Self

from pydantic import PositiveInt

from malmen.results.answers import Answer, Answers, AskedPrompt, AskedTuple, is_right
from malmen.results.file import ResultFile, ResultPart


class AnsweredPrompt(AskedPrompt):
    """A prompt with the answers of the unedited and of the edited model."""

    after: Answer


class AnsweredTuple(ResultPart):
    """The answers to the three prompts of an edit tuple."""

    id: str
    edit: AnsweredPrompt
    equivalent: AnsweredPrompt
    unrelated: AnsweredPrompt

    @classmethod
    def of(cls, asked: AskedTuple, answers: Answers) -> Self:
        """Return a tuple as the unedited model answered it, with the answers of the edited model."""

        def answered(prompt: AskedPrompt, after: Answer) -> AnsweredPrompt:
            return AnsweredPrompt(prompt=prompt.prompt, target=prompt.target, before=prompt.before, after=after)

        return cls(
            id=asked.id,
            edit=answered(asked.edit, answers.edit),
            equivalent=answered(asked.equivalent, answers.equivalent),
            unrelated=answered(asked.unrelated, answers.unrelated),
        )

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
