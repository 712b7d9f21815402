"""The graph of rules with what they need, and that docs/scaling.md shows the plan as it is."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malmen.cli import app
from malmen.config.load import load_file
from malmen.plan.estimate import Plan
from malmen.plan.graph import annotated, label

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
CHART = """---
title: DAG
---
flowchart TB
\tid0[all]
\tid1[train_editor]
\tid2[strange]
\tstyle id0 fill:#D95757
\tid2 --> id1
\tid1 --> id0
"""


def plan_of(name: str) -> Plan:
    return Plan(load_file(ROOT / "config" / f"{name}.yaml"))


def test_rules_carry_what_they_need() -> None:
    plan = plan_of("paper")
    chart = annotated(CHART, plan)
    assert chart.startswith("flowchart TB\n") and "style" not in chart
    assert f'  id1["{label("train_editor", plan)}"]' in chart and "264 jobs, 109.6 GPU hours" in chart
    assert 'id2["strange"]' in chart and 'id0["all<br/>1 job"]' in chart
    assert chart.endswith("  id1 --> id0\n  id2 --> id1")


def test_on_a_cpu_there_is_no_gpu_in_it() -> None:
    plan = plan_of("demo")
    assert "GPU" not in label("train_editor", plan) and "CPU hours" in label("train_editor", plan)


@pytest.mark.parametrize("name", ["small", "paper"])
def test_the_documented_plan_is_the_plan(name: str) -> None:
    (shown,) = re.findall(rf"<!-- plan {name} -->\n```text\n(.*?)\n```\n<!-- end -->", DOCUMENTED, re.DOTALL)
    assert shown == plan_of(name).text(), "The plan has changed: run tools/plans_in_docs.py."


def test_the_documented_graph_has_the_plans_needs() -> None:
    (shown,) = re.findall(r"<!-- graph paper -->\n```mermaid\n(.*?)\n```\n<!-- end -->", DOCUMENTED, re.DOTALL)
    plan = plan_of("paper")
    assert set(re.findall(r'\["(.*?)"\]', shown)) == {label(rule, plan) for rule in plan.by_rule()}


def test_outside_the_projects_folder_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["plan", "--graph", "--configfile", str(ROOT / "config" / "paper.yaml")])
    assert result.exit_code == 1 and "start in the project's folder" in result.output
