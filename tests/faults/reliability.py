"""The table of docs/reliability.md: each test that injects a fault writes its own row, under ``make faults``."""

import os
from pathlib import Path

from malmen.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: written by make faults -->\n", "<!-- end -->\n"
HEADER = "| Fault | How it was injected | How often | What happened |\n|---|---|---|---|\n"


def record(fault: str, injected: str, times: int, happened: str) -> None:
    """Write a row into the table in place of the fault's former one; only if ``MALMEN_RECORD_FAULTS`` is set."""
    if not os.environ.get("MALMEN_RECORD_FAULTS"):
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split(" | ")[0]: line for line in table.removeprefix(HEADER).splitlines()}
    row = f"| {fault} | {injected} | {times} | {happened} |"
    rows[row.split(" | ", maxsplit=1)[0]] = row
    lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
    write_text(PAGE, f"{before}{BEGIN}{HEADER}{lines}{END}{after}")
