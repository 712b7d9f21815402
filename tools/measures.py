#!/usr/bin/env python3
"""Write the table of measures in docs/after-malmen.md; start it in the project's folder, in its environment."""

from pathlib import Path

from malmen.results.rounds import MEASURES

PAGE = Path("docs", "after-malmen.md")
START, END = "<!-- measures -->\n", "<!-- end of measures -->\n"


def table() -> str:
    """Return a table with a line for each measure."""
    rows = [
        f"| `{name}` | {one.label} | {one.about} | {'percent' if one.unit == 'share' else 'number'} "
        f"| {'higher' if one.higher else 'lower'} |"
        for name, one in MEASURES.items()
    ]
    head = ["| name | label | what it is | unit in tables | better |", "|---|---|---|---|---|"]
    return "\n".join(["", *head, *rows, "", ""])


def page(text: str) -> str:
    """Return the page with the measures of today."""
    before, _, rest = text.partition(START)
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
