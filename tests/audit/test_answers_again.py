"""Answers that were decoded again elsewhere: few may differ, and no prompt."""

from pathlib import Path
from typing import Any

import pytest

from malmen.audit.judging import ANSWERS_TOLERANCE
from malmen.audit.rerun import SHARE_TOLERANCE, within_tolerances
from malmen.results.answers import AnsweredRun, AnswerPart, Answers, AnswersFile, Asked, AskedPrompt, AskedTuple

RIGHT, WRONG = (AnswerPart("Ada", True),), (AnswerPart("Bo", False),)
N = 50
ALLOWED = int(SHARE_TOLERANCE * 2 * 3 * N) + ANSWERS_TOLERANCE
"""Answers that may differ: of 50 tuples, each with three before and three after the edit."""


def write(path: Path, n_wrong: int = 0, prompt: str = "Who?", n: int = N) -> Path:
    asked = AskedPrompt(prompt=prompt, target="Ada", before=WRONG)
    tuples = tuple(AskedTuple(id=str(i), edit=asked, equivalent=asked, unrelated=asked) for i in range(N))
    flat = [WRONG if i < n_wrong else RIGHT for i in range(3 * n)]
    answers = tuple(Answers(*flat[3 * i : 3 * i + 3]) for i in range(n))
    run = AnsweredRun(n_edits=2, seed=0, answers=answers)
    AnswersFile(model="m", editor="e", asked=(Asked(seed=0, tuples=tuples),), runs=(run,)).write(path)
    return path


@pytest.mark.parametrize(
    ("other", "close"),
    [
        ({"n_wrong": ALLOWED}, True),
        ({"n_wrong": ALLOWED + 1}, False),
        ({"prompt": "Who else?"}, False),
        ({"n": N - 1}, False),
    ],
)
def test_a_few_answers_may_differ(tmp_path: Path, other: dict[str, Any], close: bool) -> None:
    there = write(tmp_path / "there.answers.json")
    assert within_tolerances(there, write(tmp_path / "again.answers.json", **other)) is close


def test_a_broken_file_is_never_close(tmp_path: Path) -> None:
    there = write(tmp_path / "there.answers.json")
    (tmp_path / "again.answers.json").write_text("{}")
    assert not within_tolerances(there, tmp_path / "again.answers.json")
