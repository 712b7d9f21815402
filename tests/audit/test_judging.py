"""Weights that were trained again elsewhere are judged by what they do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded import Job

from malmen.audit.judging import do_the_same, measuring_jobs
from malmen.audit.replay import prepare
from malmen.audit.rerun import rerun
from malmen.audit.trail import Trail
from malmen.provenance.environment import environment
from malmen.provenance.recording import Start, record_job, states
from malmen.provenance.records import Record

BASE, MODEL, EDITOR = (
    f"results/p/{name}" for name in ("models/tiny/pretrained", "models/tiny/finetuned", "editors/tiny")
)
METRICS, SLOW = "results/p/metrics/fast.json", "results/p/metrics/slow.json"
SCRIPT = "workflow/scripts/script.py"
# The job whose measurement reads the editor's weights: they hold the share of right answers.
WRITING = """
import json, os
for path, content in snakemake.params["contents"].items():
    if path.endswith("fast.json") and os.path.exists("NEW"):
        content = open("results/p/editors/tiny/editor.safetensors").read()
    if path.endswith("editor.safetensors") and os.path.exists("NEW"):
        content = open("NEW").read()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(content)
"""


def metrics(es: float = 0.5, groups: int = 8, n_edits: int = 32, status: str = "ok", residual: float = 0.5) -> str:
    shares = dict.fromkeys(("ES", "pre_ES", "GS", "pre_GS", "LS", "pre_LS", "agreement", "edit_success"), 0.5)
    group = {**shares, "drawdown": 0.0, "residual": residual, "ES": es}
    diverged = status == "diverged"
    run: dict[str, Any] = {"n_edits": n_edits, "seed": 0, "status": status, "reason": "x" if diverged else None}
    run["groups"] = [] if diverged else [group] * groups
    names = {"model": "tiny", "model_label": "t", "dataset": "zsre", "editor": "malmen", "editor_label": "M"}
    return json.dumps({**names, "runs": [run]})


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"es": 0.51}, True),
        ({"es": 0.54}, False),
        ({"residual": 0.505}, True),
        ({"residual": 0.52}, False),
        ({"status": "diverged"}, False),
        ({"groups": 7}, False),
        ({"n_edits": 16}, False),
    ],
)
def test_means_of_runs_may_differ_within_tolerances(tmp_path: Path, other: dict[str, Any], same: bool) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(metrics())
    new.write_text(metrics(**other))
    assert do_the_same(old, new) is same


def test_a_few_answers_may_flip_where_there_are_few_and_diverged_runs_agree(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(metrics(groups=1, n_edits=8))
    new.write_text(metrics(es=0.5 + 1 / 8, groups=1, n_edits=8))
    assert do_the_same(old, new)
    for path in (old, new):
        path.write_text(metrics(status="diverged"))
    assert do_the_same(old, new)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: a model trained in two jobs, an editor, and two measurements of it."""
    monkeypatch.chdir(tmp_path)
    Path(SCRIPT).parent.mkdir(parents=True)
    Path(SCRIPT).write_text(WRITING)
    run("pretrain_model", {}, BASE, f"{BASE}/model.safetensors", "base")
    run("finetune_model", {"base": BASE}, MODEL, f"{MODEL}/model.safetensors", "model")
    run("train_editor", {"model": MODEL}, EDITOR, f"{EDITOR}/editor.safetensors", metrics(0.5))
    run("evaluate_editor", {"model": MODEL, "trained": EDITOR}, SLOW, SLOW, metrics(0.5), seconds=9.0)
    answers = {METRICS.replace(".json", ".answers.json"): "{}"}  # beside the metrics; they do not judge
    run("evaluate_editor", {"model": MODEL, "trained": EDITOR}, METRICS, METRICS, metrics(0.5), others=answers)
    return tmp_path


def run(
    rule: str,
    inputs: dict[str, str | list[str]],
    output: str,
    file: str,
    content: str,
    seconds: float = 0.0,
    others: dict[str, str] | None = None,
) -> None:
    """Let a job make a file, and others beside it, and record them."""
    contents = {file: content, **(others or {})}
    for path, text in contents.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    params = {"seed": 1, "contents": contents, "code": {"malmen.runtime.files": "0"}}
    names = {"model": "tiny", "of": Path(output).stem}
    job = Job(rule, inputs, {"made": output, "others": list(others or {})}, params, names)
    start = Start(states(job.input))
    record_job(job, Path(SCRIPT).resolve(), replace(start, clock=start.clock - seconds))


def name_of(rule: str, trail: Trail) -> str:
    (name,) = (name for name in trail.records if name.startswith(rule))
    return name


def test_the_nearest_and_quickest_measurement_judges() -> None:
    trail = Trail("p")
    records = trail.records

    def chain(rule: str) -> list[str]:
        jobs = measuring_jobs(records[name_of(rule, trail)], records.values())
        return [f"{job.rule}/{Path(job.outputs[0].path).stem}" for job in jobs]

    assert chain("train_editor") == ["evaluate_editor/fast"]
    assert chain("finetune_model") == ["evaluate_editor/fast"]
    assert chain("pretrain_model") == ["finetune_model/finetuned", "evaluate_editor/fast"]
    (fast,) = (record for record in records.values() if record.outputs[0].path == METRICS)
    assert measuring_jobs(fast, records.values()) == []


@pytest.mark.parametrize(
    ("again", "elsewhere", "broken", "remark"),
    [
        (metrics(0.5), False, 0, "1 file with the same bytes"),
        (metrics(0.51), False, 1, "0 files with the same bytes"),  # on the same processor, bytes decide
        (metrics(0.51), True, 0, "do the same"),
        (metrics(0.56), True, 1, "do not do the same"),
    ],
)
def test_an_editor_trained_again_elsewhere_is_judged_by_its_metrics(
    again: str, elsewhere: bool, broken: int, remark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = Trail("p")
    record = trail.records[name_of("train_editor", trail)]
    monkeypatch.setattr("malmen.audit.rerun.sample", lambda *_: [record])
    if elsewhere:
        other = environment(uses_gpu=False).model_copy(update={"processor": "another"})
        monkeypatch.setattr("malmen.audit.rerun.environment", lambda **_: other)

    def prepare_and_change(records: list[Record], root: Path, scratch: Path) -> None:
        prepare(records, root, scratch)
        (scratch / "NEW").write_text(again)

    monkeypatch.setattr("malmen.audit.rerun.prepare", prepare_and_change)
    (said,) = rerun(trail, 1, 0)
    assert remark in said
    assert [one.what for one in trail.broken] == [f"{EDITOR}/editor.safetensors"] * broken
