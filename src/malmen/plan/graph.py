"""The graph of a configuration's rules, as Snakemake draws it, with what each rule's jobs need."""

import re
import subprocess
import sys
from pathlib import Path

from malmen.errors import UserError
from malmen.plan.estimate import Plan, Total, in_gigabytes


def rule_graph(configfile: Path, plan: Plan) -> str:
    """Return the graph as a Mermaid flow chart, from what to make first to what is made last.

    Raises:
        UserError: if Snakemake cannot plan, as outside the project's folder.
    """
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js", "--configfile", str(configfile)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"Snakemake cannot draw the rules of {configfile} ({last}); start in the project's folder.")
    return annotated(done.stdout, plan)


def annotated(chart: str, plan: Plan) -> str:
    """Return a chart of rules with what their jobs need in place of colours."""
    start = chart.index("flowchart")
    lines = [line.replace("\t", "  ") for line in chart[start:].splitlines() if not line.strip().startswith("style ")]
    needs = {rule: label(rule, plan) for rule in plan.by_rule()}
    nodes = [line for line in lines if "-->" not in line]
    edges = sorted(set(lines) - set(nodes))  # Snakemake gives them in any order.
    shown = [re.sub(r"\[(\w+)\]", lambda found: f'["{needs.get(found[1], found[1])}"]', line) for line in nodes]
    return "\n".join([*shown, *edges])


def label(rule: str, plan: Plan) -> str:
    """Return a rule with its jobs, their hours, and the memory of the largest."""
    total = Total.of(plan.by_rule()[rule])
    parts = [rule, f"{total.jobs:,} job{'s' * (total.jobs > 1)}"]
    if total.hours is not None:
        parts[-1] += f", {total.hours:,.1f} {plan.hours_of}"
        device = f"{in_gigabytes(total.least)} GB GPU, " if total.least else ""
        parts.append(f"at most {device}{in_gigabytes(total.memory)} GB RAM")
    return "<br/>".join(parts)
