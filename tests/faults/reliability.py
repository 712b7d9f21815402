"""The table of docs/reliability.md: each test that injects a fault writes its own row, under ``make faults``.

``python reliability.py`` empties the table.
"""

import os
from collections import Counter
from pathlib import Path

from malmen.runtime.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: written by make faults -->\n", "<!-- end -->\n"
HEADER = "| Fault | How it was injected | How often | What happened |\n|---|---|---|---|\n"


COUNTED: Counter[str] = Counter()
"""How often each fault was injected by the tests that ran so far."""


def record(fault: str, injected: str, times: int, happened: str) -> None:
    """Write a row into the table in place of the fault's former one; only if ``MALMEN_RECORD_FAULTS`` is set.

    What several tests record of one fault adds up.
    """
    if not os.environ.get("MALMEN_RECORD_FAULTS"):
        return
    COUNTED[fault] += times
    before, table, after = page()
    rows = {line.split(" | ")[0]: line for line in table.removeprefix(HEADER).splitlines()}
    row = f"| {fault} | {injected} | {COUNTED[fault]} | {happened} |"
    rows[row.split(" | ", maxsplit=1)[0]] = row
    write_text(PAGE, before + HEADER + "".join(f"{rows[name]}\n" for name in sorted(rows)) + after)


def page() -> tuple[str, str, str]:
    """Return the page in three parts, the second of which is the table."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin], text[begin:end], text[end:]


def record_restored() -> None:
    record(
        "an edit that fails",
        "while its weights are in place: outputs that are not numbers, memory that runs out",
        1,
        "the original weights return bit for bit",
    )


if __name__ == "__main__":
    write_text(PAGE, page()[0] + page()[2])
