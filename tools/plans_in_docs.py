#!/usr/bin/env python3
"""Write the plans in docs/scaling.md again; start it in the project's folder, in its environment."""

from pathlib import Path

from malmen.config.load import load_file
from malmen.plan.estimate import Known
from malmen.plan.jobs import plan, with_one_seed
from malmen.plan.report import reduced, tables

PAGE = Path("docs/scaling.md")


def documented(run: str) -> str:
    """Return the plan of a configuration as the page shows it: that of a fresh clone."""
    configfile = Path("config", f"{run}.yaml")
    known = Known(load_file(configfile))
    parts = [*tables(plan(configfile, known), known)]
    if fewer := with_one_seed(configfile, known, {}):
        parts.append(reduced(fewer, known.config.seeds[0], {}))
    text = "\n\n".join(parts)
    return f"<!-- plan {run} -->\n```text\n{text}\n```\n<!-- end -->"


def main() -> None:
    """Replace the blocks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for run in ("small", "paper"):
        before, _, rest = page.partition(f"<!-- plan {run} -->")
        page = before + documented(run) + rest.partition("<!-- end -->")[2]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
