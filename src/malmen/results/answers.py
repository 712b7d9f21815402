"""What models answer before and after edits: decoded answers, and the file of those that an evaluation keeps."""

from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import PositiveInt

from malmen.results.file import ResultFile, ResultPart
from malmen.runtime.files import write_text

SUFFIX = ".answers.json"


class AnswerPart(NamedTuple):
    """A token of an answer, or the tokens that make up one character, and whether all of it is right."""

    text: str
    right: bool


Answer = tuple[AnswerPart, ...]


def is_right(answer: Answer) -> bool:
    """Say whether an answer is right as a whole."""
    return all(part.right for part in answer)


class AskedPrompt(ResultPart):
    """A prompt, the answer it should have, and the answer of the unedited model."""

    prompt: str
    target: str
    before: Answer


class AskedTuple(ResultPart):
    """The three prompts of an edit tuple."""

    id: str
    edit: AskedPrompt
    equivalent: AskedPrompt
    unrelated: AskedPrompt

    @property
    def prompts(self) -> tuple[AskedPrompt, AskedPrompt, AskedPrompt]:
        """The three, in this order."""
        return self.edit, self.equivalent, self.unrelated


class Answers(NamedTuple):
    """The answers of one model to the three prompts of an edit tuple."""

    edit: Answer
    equivalent: Answer
    unrelated: Answer


class Asked(ResultPart):
    """What every run with a seed was asked: a seed draws the equivalent prompts."""

    seed: int
    tuples: tuple[AskedTuple, ...]


class AnsweredRun(ResultPart):
    """What a run answered.

    Attributes:
        n_edits: the number of edits m.
        seed: its seed.
        answers: to the first tuples that its seed was asked, as far as its whole groups go, each after the edit of its
            own group: the tuple at a place belongs to the group ``place // n_edits``.
    """

    n_edits: PositiveInt
    seed: int
    answers: tuple[Answers, ...]


class AnswersFile(ResultFile):
    """The answers of one editor on one model: to the first tuples of the split, in every run."""

    kind: ClassVar[str] = "answers"

    model: str
    editor: str
    asked: tuple[Asked, ...]
    runs: tuple[AnsweredRun, ...]

    @property
    def prompts(self) -> list[tuple[str, str]]:
        """All prompts with their targets, in order."""
        asked = (prompt for one in self.asked for item in one.tuples for prompt in item.prompts)
        return [(prompt.prompt, prompt.target) for prompt in asked]

    @property
    def answers(self) -> list[list[Answer]]:
        """All answers before the edit, then those of each run after it, in order."""
        before = [prompt.before for one in self.asked for item in one.tuples for prompt in item.prompts]
        return [before, *([answer for three in run.answers for answer in three] for run in self.runs)]

    def write(self, path: Path) -> None:
        """Write the file in one line: thousands of answers, one part a line, would be ten times as large."""
        write_text(path, self.model_dump_json() + "\n")
