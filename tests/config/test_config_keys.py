from pathlib import Path

import pytest
from config_keys import PAGE, page

ROOT = Path(__file__).parents[2]


def test_the_page_lists_the_keys_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "The configuration's types have changed: run `make schema`."
    for key in ("`n_edits_per_job`", "`figures.<name>`, memory", "`covariance_weight`", "`models.<name>.scratch`"):
        assert key in text
