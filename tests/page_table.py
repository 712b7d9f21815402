"""Tables in the documentation that tests write, and compare with what they find.

A test writes its row, and does not compare it, if the environment variable ``MALMEN_RECORD_FAMILIES`` is set.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from malmen.runtime.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-model.md"
END = "<!-- end -->\n"


@dataclass(frozen=True)
class PageTable:
    """A table of ``docs/adding-a-model.md``, sorted by the first column.

    Attributes:
        test: the file of the tests that write it, which the page names before the table.
        columns: the header of each column.
        measured: how many of the last columns hold numbers that depend on the machine, and are not compared.
    """

    test: str
    columns: Sequence[str]
    measured: int = 0

    @property
    def begin(self) -> str:
        """Return the line before the table."""
        return f"<!-- begin: written by MALMEN_RECORD_FAMILIES=1 pytest {self.test} -->\n"

    @property
    def header(self) -> str:
        """Return the first two lines of the table."""
        return f"| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}\n"

    def rows(self) -> dict[str, str]:
        """Return the page's rows by their first cells."""
        table = PAGE.read_text(encoding="utf-8").split(self.begin)[1].split(END)[0]
        lines = table.removeprefix(self.header).splitlines()
        return {line.split(" | ")[0].removeprefix("| "): line for line in lines}

    def check(self, cells: Sequence[str]) -> None:
        """Compare a row with the page, or write it."""
        row = f"| {' | '.join(cells)} |"
        if os.environ.get("MALMEN_RECORD_FAMILIES"):
            rows = self.rows() | {cells[0]: row}
            before, after = PAGE.read_text(encoding="utf-8").split(self.begin)
            rest = after[after.index(END) :]
            lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
            write_text(PAGE, f"{before}{self.begin}{self.header}{lines}{rest}")
        compared = len(cells) - self.measured
        assert self.rows().get(cells[0], "").split(" | ")[:compared] == row.split(" | ")[:compared]
