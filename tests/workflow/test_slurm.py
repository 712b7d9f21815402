"""A part of the workflow on a real SLURM of one node, through ``profiles/slurm``."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from slurm import Slurm, missing, one_node
from test_workflow import Project, copy_project

FAST = (
    "--slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 1 "
    "--seconds-between-status-checks 1 --latency-wait 10"
)
"""What this SLURM is without, a database of accounts; and not to wait as long as a busy one wants."""
SHOWN = ("JobId", "Comment", "JobState", "TRES", "TresPerJob", "TimeLimit")
"""What is printed of each job."""
GPU_RULES = ("pretrain_model", "teach_model", "train_editor", "evaluate_editor")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra 'slurm' is not installed")
    if reason := missing():
        pytest.skip(reason)
    with one_node(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def one_figure(folder: Path) -> Project:
    """Return a copy of the project whose configuration makes one figure of one editor."""
    project = copy_project(folder)
    path = project.folder / "config" / "demo.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["figures"] = {"figure4": {"model": "bert", "editors": ["malmen"]}}
    kept = {key: value for key, value in raw.items() if not key.startswith("table")}
    path.write_text(yaml.safe_dump(kept | {"models": {"bert": raw["models"]["bert"]}}), encoding="utf-8")
    return project


def test_a_figure_is_made_by_slurms_jobs(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = one_figure(tmp_path)
    for key, value in slurm.environment.items():
        monkeypatch.setitem(os.environ, key, value)
    gpu = " ".join(f"{rule}:gpu=1" for rule in GPU_RULES)  # as with device: cuda; this node's GPU is a pretended one
    target = "results/test/figures/figure4.pdf"
    run = project.run(f"snakemake --workflow-profile profiles/slurm {FAST} --set-resources {gpu} -- {target}")
    assert run.status == 0, run.output
    assert (project.folder / target).read_bytes().startswith(b"%PDF")
    jobs = slurm.jobs()
    shown = [" ".join(job.get(key, "-") for key in SHOWN) for job in jobs]
    with capsys.disabled():
        print("", *shown, sep="\n")
    asked = {job["Comment"].removeprefix("rule_").partition("_wildcards")[0]: job for job in jobs}
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert len(jobs) == len(re.findall("has been submitted with SLURM jobid", run.output)) == 6
    for rule in GPU_RULES:
        assert "gpu:1" in asked[rule]["TresPerJob"]
    for rule in set(asked) - set(GPU_RULES):
        assert "TresPerJob" not in asked[rule]
