"""Every family that transformers has a causal language model for is edited right, or refused with the reason.

The table of docs/adding-a-model.md has a row for each, which its test writes if ``MALMEN_RECORD_FAMILIES`` is set.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from examine import DONE, Outcome, examine
from families import FAMILIES, NOT_MADE

from malmen.runtime.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-model.md"
BEGIN, END = (
    "<!-- begin: written by MALMEN_RECORD_FAMILIES=1 pytest tests/field/test_families.py -->\n",
    "<!-- end -->\n",
)
HEADER = f"| Family | Default layers | {' | '.join(DONE)} | Reason |\n|{'---|' * (len(DONE) + 3)}\n"


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
    edited = [row for row in table().values() if row.count("| yes") == len(DONE)]
    assert len(edited) >= 100
    assert set(table()) == set(FAMILIES)


def check_row(family: str, outcome: Outcome) -> None:
    """Compare a family's row with the page, or write it."""
    cells = [family, " ".join(f"`{name}`" for name in outcome.layers), *outcome.cells.values(), outcome.reason]
    row = f"| {' | '.join(cells)} |"
    if os.environ.get("MALMEN_RECORD_FAMILIES"):
        rows = table() | {family: row}
        before, after = PAGE.read_text(encoding="utf-8").split(BEGIN)
        lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
        write_text(PAGE, f"{before}{BEGIN}{HEADER}{lines}{END}{after.split(END)[1]}")
    assert table().get(family) == row


def table() -> dict[str, str]:
    """Return the page's rows by family."""
    lines = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].removeprefix(HEADER).splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}
