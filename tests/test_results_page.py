"""The page of results, and the README's table, are those of the published files."""

import pytest
from results_page import PAGE, README, Published, page, readme


@pytest.fixture
def real() -> Published:
    run = Published("real")
    if not run.is_there:
        pytest.skip("no results of config/real.yaml are published")
    return run


def test_the_page_is_written_of_the_published_files(real: Published) -> None:
    written = page(real, Published("demo"), Published("real_scan"))
    assert PAGE.read_text(encoding="utf-8") == written, "run `make results-page`"


def test_the_table_of_the_readme_is_that_of_figure_5(real: Published) -> None:
    text = README.read_text(encoding="utf-8")
    assert text == readme(text, real), "run `make results-page`"
