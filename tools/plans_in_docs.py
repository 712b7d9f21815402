#!/usr/bin/env python3
"""Writes the plans and the graph in docs/scaling.md anew; start it in the project's folder, in its environment."""

import re
from pathlib import Path

from malmen.config.load import load_file
from malmen.plan.estimate import Plan
from malmen.plan.graph import rule_graph

PAGE = Path("docs/scaling.md")


def replaced(page: str, name: str, kind: str, content: str) -> str:
    """Return the page with another block of that name."""
    block = f"<!-- {name} -->\n```{kind}\n{content}\n```\n<!-- end -->"
    return re.sub(f"<!-- {name} -->.*?<!-- end -->", lambda _: block, page, flags=re.DOTALL)


page = PAGE.read_text(encoding="utf-8")
for profile in ("small", "paper"):
    configfile = Path("config", f"{profile}.yaml")
    plan = Plan(load_file(configfile))
    page = replaced(page, f"plan {profile}", "text", plan.text())
    page = replaced(page, f"graph {profile}", "mermaid", rule_graph(configfile, plan))
PAGE.write_text(page, encoding="utf-8")
