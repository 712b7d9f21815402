#!/usr/bin/env python3
"""Write the plans in docs/scaling.md again; start it in the project's folder, in its environment."""

from pathlib import Path

from malmen.config.load import load_file
from malmen.plan.estimate import Known
from malmen.plan.report import plan, table, table_by_target

PAGE = Path("docs/scaling.md")


def documented(run: str) -> str:
    """Return the plan of a configuration as the page shows it."""
    configfile = Path("config", f"{run}.yaml")
    config = load_file(configfile)
    jobs = plan(configfile, Known(config))
    return f"<!-- plan {run} -->\n```text\n{table(jobs, config.models)}\n\n{table_by_target(jobs)}\n```\n<!-- end -->"


def main() -> None:
    """Replace the blocks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for run in ("small", "paper"):
        before, _, rest = page.partition(f"<!-- plan {run} -->")
        page = before + documented(run) + rest.partition("<!-- end -->")[2]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
