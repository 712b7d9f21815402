import csv
import json
from pathlib import Path
from typing import Any

import pytest

from malmen.errors import UserError
from malmen.figures.failure_table import write_failures

Answer = list[tuple[str, bool]]
RIGHT: Answer = [(" Mur", True), ("ine", True)]
WRONG: Answer = [(" Mur", True), ("al|*", False), (" <b>", False)]


def answered(prompt: str, before: Answer, after: Answer) -> dict[str, Any]:
    def parts(answer: Answer) -> list[dict[str, Any]]:
        return [{"text": text, "right": right} for text, right in answer]

    return {"prompt": prompt, "target": "Murine", "before": parts(before), "after": parts(after)}


def record(name: str, edit: Answer, equivalent: Answer, unrelated: tuple[Answer, Answer]) -> dict[str, Any]:
    return {
        "id": name,
        "edit": answered(f"{name} edit?", WRONG, edit),
        "equivalent": answered(f"{name} equivalent?", WRONG, equivalent),
        "unrelated": answered(f"{name} unrelated?", *unrelated),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    records = [
        record("spoiled", RIGHT, RIGHT, (RIGHT, WRONG)),
        record("edit", WRONG, RIGHT, (RIGHT, RIGHT)),
        record("never known", RIGHT, WRONG, (WRONG, WRONG)),
        record("all", WRONG, WRONG, (RIGHT, [("", False)])),
    ]
    about = {"editor": "malmen", "editor_label": "MALMEN", "model_label": "T5_1 & co", "n_edits": 8, "seed": 0}
    path = tmp_path / "failures.json"
    path.write_text(json.dumps({**about, "records": records}))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_records_are_kept_together_and_shown_in_order(source: Path, tmp_path: Path) -> None:
    write_failures(source, "edited", 2, "zsRE", tmp_path / "table4")
    lines = (tmp_path / "table4.md").read_text(encoding="utf-8").splitlines()
    assert "T5\\_1 \\& co on zsRE after 8 edits at once by MALMEN" in lines[0]
    assert "the first 2 of 3 such tuples, out of 8" in lines[0]
    wrong = "Mur<b><ins>al\\|\\*</ins></b> <b><ins>\\<b\\></ins></b> ✗"
    assert lines[4:10] == [
        f"| edit | edit edit? | Murine | {wrong} | {wrong} |",
        f"| equivalent | edit equivalent? | Murine | {wrong} | Murine ✓ |",
        "| unrelated | edit unrelated? | Murine | Murine ✓ | Murine ✓ |",
        f"| edit | never known edit? | Murine | {wrong} | Murine ✓ |",
        f"| equivalent | never known equivalent? | Murine | {wrong} | {wrong} |",
        f"| unrelated | never known unrelated? | Murine | {wrong} | {wrong} |",
    ]
    assert [row["id"] for row in rows(tmp_path / "table4.csv")[::3]] == ["edit", "never known", "all"]


def test_unrelated_failures_were_right_before(source: Path, tmp_path: Path) -> None:
    write_failures(source, "unrelated", 9, "zsRE", tmp_path / "table5")
    assert "all 2 such tuples" in (tmp_path / "table5.md").read_text(encoding="utf-8")
    table = rows(tmp_path / "table5.csv")
    assert [(row["id"], row["tuple"]) for row in table] == [
        (name, kind) for name in ("spoiled", "all") for kind in ("edit", "equivalent", "unrelated")
    ]
    assert table[2] == {
        "id": "spoiled",
        "tuple": "unrelated",
        "prompt": "spoiled unrelated?",
        "target": "Murine",
        "before": "Murine",
        "before_marked": "Murine",
        "before_right": "true",
        "after": "Mural|* <b>",
        "after_marked": "Mur«al|*» «<b>»",
        "after_right": "false",
    }
    assert (table[5]["after"], table[5]["after_marked"]) == ("", "«␣»")


def test_html_and_latex_mark_and_escape(source: Path, tmp_path: Path) -> None:
    write_failures(source, "edited", 1, "zsRE", tmp_path / "table4")
    assert "Mur<b><u>al|*</u></b> <b><u>&lt;b&gt;</u></b> ✗" in (tmp_path / "table4.html").read_text(encoding="utf-8")
    latex = (tmp_path / "table4.tex").read_text(encoding="utf-8")
    assert r"\raggedright Mur\underline{\textbf{al\textbar{}*}} " in latex
    assert r"\label{tab:table4}" in latex


def test_no_failures_are_said(source: Path, tmp_path: Path) -> None:
    content = json.loads(source.read_text())
    source.write_text(json.dumps(content | {"records": []}))
    write_failures(source, "edited", 5, "zsRE", tmp_path / "table4")
    assert "all 0 such tuples, out of 8" in (tmp_path / "table4.md").read_text(encoding="utf-8")
    assert rows(tmp_path / "table4.csv") == []


@pytest.mark.parametrize("content", ["", "[]", '{"records": []}'])
def test_what_is_no_failures_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(UserError, match=r"broken\.json is not a failures file"):
        write_failures(tmp_path / "broken.json", "edited", 5, "zsRE", tmp_path / "table4")
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        write_failures(tmp_path / "absent.json", "edited", 5, "zsRE", tmp_path / "table4")
