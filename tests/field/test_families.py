"""Every family that transformers has a causal language model for is edited right, or refused with the reason.

The table of docs/adding-a-model.md has a row for each, which its test writes if ``MALMEN_RECORD_FAMILIES`` is set.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from examine import DONE, Outcome, examine
from families import FAMILIES, NOT_MADE
from page_table import PageTable

TABLE = PageTable("tests/field/test_families.py", ("Family", "Default layers", *DONE, "Reason"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let transformers warn of nothing, and torch use one thread: these models are too small for two."""
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(verbosity)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NOT_MADE])
def test_a_family_is_edited_right_or_refused(family: str, tmp_path: Path) -> None:
    outcome = examine(family, tmp_path)
    assert bool(outcome.reason) == ("no" in outcome.cells.values())
    check_row(family, outcome)


@pytest.mark.parametrize("family", sorted(NOT_MADE))
def test_a_family_that_was_not_made_is_listed(family: str) -> None:
    check_row(family, Outcome(reason=f"not tried: {NOT_MADE[family]}", cells=dict.fromkeys(DONE, "")))


def test_most_families_are_tried() -> None:
    assert set(NOT_MADE) <= set(FAMILIES)
    edited = [row for row in TABLE.rows().values() if row.count("| yes") == len(DONE)]
    assert len(edited) >= 100
    assert set(TABLE.rows()) == set(FAMILIES)


def check_row(family: str, outcome: Outcome) -> None:
    """Compare a family's row with the page, or write it."""
    layers = " ".join(f"`{name}`" for name in outcome.layers)
    TABLE.check([family, layers, *outcome.cells.values(), outcome.reason])
