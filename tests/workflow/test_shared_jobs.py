"""Jobs that two processes share (``workers: 2``): the metrics of one process, and records that an audit accepts."""

import shutil
from pathlib import Path

import pytest
import yaml
from workflow_project import Finished, Project

from malmen.audit.audit import check_plan
from malmen.audit.planned import planned_jobs
from malmen.audit.replay import prepare, replay
from malmen.audit.trail import Trail
from malmen.provenance.records import read_record
from malmen.results.metrics import MetricsFile

METRICS = "results/test/metrics/validation/bert/malmen/m4-16_seed0.json"
RECORDS = ("train_editor/bert.malmen.4-16.0.json", "evaluate_editor/validation.bert.malmen.4-16.0.json")


def test_two_processes_make_what_one_does(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    before = MetricsFile.read(project.folder / METRICS)
    raw = project.config()
    raw["models"]["bert"]["workers"] = 2
    (project.folder / "config" / "demo.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    run = project.run(f"snakemake --cores 2 -- {METRICS}")
    assert run.status == 0, run.output
    assert run.jobs == {"train_editor": 1, "evaluate_editor": 1}
    after = MetricsFile.read(project.folder / METRICS)
    for one, two in zip(before.runs, after.runs, strict=True):
        for group, other in zip(one.groups, two.groups, strict=True):
            # The residual follows from trained weights, in which Adam's first steps turn rounding into differences.
            assert other.residual == pytest.approx(group.residual, rel=2e-3)
            shares, others = (metrics.model_dump(exclude={"residual"}) for metrics in (group, other))
            assert others == pytest.approx(shares, rel=1e-5)

    records = [read_record(project.path("records", name)) for name in RECORDS]
    for record in records:
        assert record.settings["machine"]["ranks"] == len(record.circumstances.ranks) == 2
    trail = Trail("test", project.folder)
    trail.check()
    check_plan(trail, planned_jobs(project.folder / "config" / "demo.yaml", project.folder))
    assert not {broken.job for broken in trail.broken} & {record.name for record in records}
    assert {record.name for record in records} <= {link.job for link in trail.links if link.kind == "settings"}
    prepare(records[1:], project.folder, tmp_path / "again")
    assert replay(records[1:], tmp_path / "again", project.folder) == {}
    assert (tmp_path / "again" / METRICS).read_bytes() == (project.folder / METRICS).read_bytes()
