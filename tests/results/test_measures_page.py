from pathlib import Path

import pytest
from measures import PAGE, page

from malmen.results.rounds import MEASURES

ROOT = Path(__file__).parents[2]


def test_the_page_lists_the_measures_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "The measures have changed: run `make schema`."
    assert all(f"| `{name}` |" in text for name in MEASURES)
