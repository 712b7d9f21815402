"""Counts of what steps dropped."""

from pathlib import Path

import pytest

from malmen.data.reports import Report, read_report, table, total

FIRST = Report("filter", "rephrasings", 10, {"too_long": 1, "other_prediction": 2}, 7)
SECOND = Report("filter", "rephrasings", 1005, {"too_long": 0, "other_prediction": 1001}, 4)


def test_all_that_was_read_must_be_accounted_for() -> None:
    with pytest.raises(ValueError, match="filter: 10 rephrasings were read, but 7 kept and"):
        Report("filter", "rephrasings", 10, {"too_long": 1}, 7)


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    FIRST.write(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == FIRST


def test_parts_are_added_up_into_a_line_of_the_table() -> None:
    both = total([FIRST, SECOND])
    assert both == Report("filter", "rephrasings", 1015, {"too_long": 1, "other_prediction": 1003}, 11)
    lines = table([Report("select", "prompts", 3, {}, 3), both]).splitlines()
    assert lines[2:] == [
        "| select | 3 prompts | - | 3 |",
        "| filter | 1,015 rephrasings | 1 too long, 1,003 other prediction | 11 |",
    ]
