"""What docs/after-malmen.md says was measured is what the published files hold."""

import pytest
from after_malmen import PAGE, RUNS, page


def test_the_page_is_written_of_the_published_files() -> None:
    runs = [run for run in RUNS if run.is_there]
    if not runs:
        pytest.skip("no results of config/lifelong.yaml are published")
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, runs) == text, "run `make results-page`"
