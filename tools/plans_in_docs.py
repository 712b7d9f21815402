#!/usr/bin/env python3
"""Write the plans in docs/scaling.md again; start it in the project's folder, in its environment."""

from pathlib import Path

from malmen.audit.planned import overridden
from malmen.config.load import load_file
from malmen.plan.estimate import Known
from malmen.plan.jobs import Total, plan, with_one_seed
from malmen.plan.order import in_order
from malmen.plan.report import duration, reduced, tables

PAGE = Path("docs/scaling.md")
REDUCED = (
    ["seeds=[0]"],
    ["seeds=[0]", "evaluation={max_groups: 1}"],
    ["seeds=[0]", "evaluation={max_groups: 1}", "models={t5: {n_edits: [1024]}, gptj: {n_edits: [1024]}}"],
)
"""What the page replaces in the paper's grid."""


def configfile(run: str) -> Path:
    """Return the file of a configuration."""
    return Path("config", f"{run}.yaml")


def documented(run: str) -> str:
    """Return the plan of a configuration as the page shows it: that of a fresh clone."""
    file = configfile(run)
    known = Known(load_file(file))
    parts = [*tables(plan(file, known), known)]
    if fewer := with_one_seed(file, known, {}):
        parts.append(reduced(fewer, known.config.seeds[0], {}))
    text = "\n\n".join(parts)
    return f"<!-- plan {run} -->\n```text\n{text}\n```\n<!-- end -->"


def documented_reductions() -> str:
    """Return what reduced grids of the paper take as the page shows it."""
    rows = ["| `--config` | Jobs | The whole run | Figure 4 is there after |", "|---|---|---|---|"]
    for entries in REDUCED:
        overrides = overridden(entries)
        jobs = plan(configfile("paper"), Known(load_file(configfile("paper"), overrides)), overrides)
        total, after = Total.of(jobs), {target.name: target.there_after for target in in_order(jobs)}
        words = " ".join(f"'{entry}'" for entry in entries)
        rows.append(f"| `{words}` | {total.jobs} | {duration(total.time)} | {duration(after['figure4'])} |")
    return "\n".join(["<!-- plan reduced -->", *rows, "<!-- end -->"])


def main() -> None:
    """Replace the blocks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for block in (documented("small"), documented("paper"), documented_reductions()):
        before, _, rest = page.partition(block.partition("\n")[0])
        page = before + block + rest.partition("<!-- end -->")[2]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
