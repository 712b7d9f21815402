"""Reports of many problems at once."""

import re
import tempfile
from pathlib import Path

import pytest

from malmen.errors import UserError
from malmen.runtime.problems import SHOWN, refuse_all


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def message(problems: list[str]) -> list[str]:
    with pytest.raises(UserError) as caught:
        refuse_all(problems, "743 records of facts.jsonl")
    return str(caught.value).splitlines()


def test_without_problems_nothing_is_raised(temporary: Path) -> None:
    refuse_all([], "743 records of facts.jsonl")
    assert list(temporary.iterdir()) == []


def test_one_problem_is_the_whole_message() -> None:
    assert message(["line 3: wrong."]) == ["line 3: wrong."]


def test_a_few_problems_are_all_shown(temporary: Path) -> None:
    problems = [f"line {number}: wrong." for number in range(SHOWN)]
    first, *shown = message(problems)
    assert "10 problems" in first and "743 records of facts.jsonl" in first
    assert shown == problems and list(temporary.iterdir()) == []


def test_of_many_problems_a_file_has_all(temporary: Path) -> None:
    problems = [f"line {number}: wr\u202eng." for number in range(1374)]
    first, *shown, last = message(problems)
    assert "1,374 problems" in first and len(shown) == SHOWN
    (name,) = re.findall(r"/\S+\.txt", last)
    assert Path(name).parent == temporary
    listed = Path(name).read_text(encoding="utf-8").splitlines()
    assert len(listed) == 1374 and listed[-1] == r"line 1373: wr\u202eng."


def test_a_list_that_cannot_be_written_hides_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    first, *shown, last = message(["line 1: wrong."] * 11)
    assert "11 problems" in first and len(shown) == SHOWN and "TMPDIR" in last
