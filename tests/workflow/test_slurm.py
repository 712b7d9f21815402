"""A part of the workflow on a real SLURM of one node, through ``profiles/slurm``."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from slurm import Slurm, missing, one_node
from workflow_project import Project, copy_project

from malmen.provenance.records import read_record

FAST = (
    "--slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 1 "
    "--seconds-between-status-checks 1 --latency-wait 10"
)
"""What this SLURM is without, a database of accounts; and not to wait as long as a busy one wants."""
SHOWN = ("JobId", "Comment", "JobState", "TRES", "TresPerJob", "TimeLimit")
"""What is printed of each job."""
COMMAND = f"snakemake --workflow-profile profiles/slurm {FAST}"
FIGURE = "results/test/figures/figure4.pdf"
GPU_RULES = ("pretrain_model", "finetune_model", "train_editor", "evaluate_editor")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra 'slurm' is not installed")
    if reason := missing():
        pytest.skip(reason)
    with one_node(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def one_figure(folder: Path) -> Project:
    """Return a copy of the project whose configuration makes one figure of one editor, trained by two processes."""
    project = copy_project(folder)
    path = project.folder / "config" / "demo.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["figures"] = {"figure4": {"kind": "scaling", "model": "bert", "editors": ["malmen"]}}
    kept = {key: value for key, value in raw.items() if not key.startswith("table")}
    kept["models"] = {"bert": raw["models"]["bert"] | {"workers": 2}}
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def project(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A copy of the project in which commands find this SLURM."""
    before = dict(os.environ)
    os.environ.update(slurm.environment)
    yield one_figure(tmp_path_factory.mktemp("project"))
    os.environ.clear()
    os.environ.update(before)


def test_a_figure_is_made_by_slurms_jobs(slurm: Slurm, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = " ".join(f"{rule}:gpu=1" for rule in GPU_RULES)  # as with device: cuda; this node's GPU is a pretended one
    run = project.run(f"{COMMAND} --set-resources {gpu} -- {FIGURE}")
    assert run.status == 0, run.output
    assert (project.folder / FIGURE).read_bytes().startswith(b"%PDF")
    jobs = slurm.jobs()
    with capsys.disabled():
        print("", *(" ".join(job.get(key, "-") for key in SHOWN) for job in jobs), sep="\n")
    asked = {job["Comment"].removeprefix("rule_").partition("_wildcards")[0]: job for job in jobs}
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert len(jobs) == len(re.findall("has been submitted with SLURM jobid", run.output)) == 6
    for rule in GPU_RULES:
        assert "gpu:1" in asked[rule]["TresPerJob"]
    for rule in set(asked) - set(GPU_RULES):
        assert "TresPerJob" not in asked[rule]
    shared = ("train_editor", "evaluate_editor")
    assert all(job["NumCPUs"] == ("2" if rule in shared else "1") for rule, job in asked.items())
    records = [read_record(file) for rule in shared for file in project.path("records", rule).glob("*.json")]
    assert [len(record.circumstances.ranks) for record in records] == [2, 2]


def test_a_preempted_job_starts_over(slurm: Slurm, project: Project) -> None:
    target = "results/test/editors/bert/malmen/m4-16_seed0"
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(project.run, f"{COMMAND} --forcerun train_editor -- {target}")
        number = wait_for_job(slurm, "rule_train_editor", "RUNNING")
        slurm.ask("scontrol", "requeue", number)
        wait_for_job(slurm, "rule_train_editor", "PENDING")
        slurm.ask("scontrol", "update", f"JobId={number}", "StartTime=now")  # else it waits for two minutes
        run = waiting.result()
    assert run.status == 0, run.output
    (job,) = [job for job in slurm.jobs() if job["JobId"] == number]
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "1"
    assert run.output.count("has been submitted with SLURM jobid") == 1
    assert (project.folder / target / "m16_seed0" / "editor.safetensors").is_file()


def wait_for_job(slurm: Slurm, rule: str, state: str, seconds: float = 120) -> str:
    """Return the number of a rule's job as soon as it is in a state."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for job in slurm.jobs():
            if job["Comment"].startswith(rule) and job["JobState"] == state:
                return job["JobId"]
        time.sleep(0.2)
    raise TimeoutError(f"no job of {rule} is {state}")
