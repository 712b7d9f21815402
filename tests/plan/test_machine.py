"""What a machine holds against what a run needs, and what jobs ask a cluster for."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malmen.cli import app
from malmen.config.load import load_file
from malmen.errors import UserError
from malmen.plan import machine as capacity
from malmen.plan.estimate import Job, Plan, Total, requested
from malmen.plan.machine import Capacity

CONFIGURATIONS = Path(__file__).parents[2] / "config"
LARGE = Capacity(disk=1e12, memory=1e12, gpu=1e12)


@pytest.fixture(scope="module")
def paper() -> Plan:
    return Plan(load_file(CONFIGURATIONS / "paper.yaml"))


def test_what_fits_is_not_refused(paper: Plan) -> None:
    total = Total.of(paper.jobs)
    exactly = Capacity(total.disk, total.memory, total.least)
    assert LARGE.shortage(paper) is None and exactly.shortage(paper) is None
    assert Capacity(disk=1e12, memory=None, gpu=None).shortage(paper) is None


@pytest.mark.parametrize(
    ("capacity", "parts"),
    [
        (replace(LARGE, gpu=24e9), [r"evaluate_editor \(memit on gptj at m = 16384\)", "GPU memory and .* 24.0"]),
        (
            replace(LARGE, memory=16e9),
            [r"collect_covariance \(memit on gptj\)", "GB of main memory and there are 16.0"],
        ),
        (replace(LARGE, disk=9e9), ["its results need some [0-9.]+ GB of disk and 9.0 are free"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(paper: Plan, capacity: Capacity, parts: list[str]) -> None:
    sentence = capacity.shortage(paper) or ""
    assert sentence.startswith("This machine cannot hold the run 'paper': ") and "check_machine: false" in sentence
    assert sentence.count(" and there are ") + sentence.count(" are free") == 1
    for part in parts:
        assert re.search(part, sentence)


def test_of_a_spread_model_a_gpu_holds_its_share(paper: Plan) -> None:
    def job(**spread: object) -> Job:
        model = paper.config.models["gptj"].model_copy(update=spread)
        models = {**paper.config.models, "gptj": model}
        return Plan(paper.config.model_copy(update={"models": models})).training_job("gptj", "malmen", [32], 1)

    whole, spread = job(), job(device_map="auto", gpus=2)
    weights = paper.networks["gptj"].parameters * 2
    assert whole.needs.least - spread.needs.least == pytest.approx(1.25 * weights / 2)
    assert whole.needs.memory == spread.needs.memory and job(gpus=2).needs == whole.needs


def test_what_is_made_already_counts_as_free_disk(tmp_path: Path) -> None:
    before = Capacity.here([tmp_path / "results"], jobs_run_here=False)
    (tmp_path / "results" / "deep").mkdir(parents=True)
    (tmp_path / "results" / "deep" / "weights").write_bytes(bytes(10_000_000))
    assert capacity.size_of(tmp_path / "results") == 10_000_000
    assert Capacity.here([tmp_path / "results"]).memory and before.memory is None and before.gpu is None


@pytest.mark.parametrize(("answer", "expected"), [("16384\\n81920", 81920 * 2**20), ("[N/A]", None), (None, None)])
def test_the_largest_gpu_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if answer is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{answer}'\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert capacity.largest_gpu() == expected


@pytest.mark.parametrize(
    ("program", "refused"),
    [("echo False", True), ("echo a warning; echo False", True), ("echo True", False), ("exit 1", False)],
)
def test_a_gpu_is_missing_only_if_torch_finds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, refused: bool
) -> None:
    (tmp_path / "python").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    said = capacity.missing_gpu("small")
    assert (said is not None) == refused
    assert not said or ("'small' needs a GPU" in said and "set device: cpu" in said)


def test_a_plan_for_a_gpu_is_not_for_a_machine_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["plan", "--check", "--configfile"]
    refused, accepted = (
        CliRunner().invoke(app, [*arguments, str(CONFIGURATIONS / name)]) for name in ("small.yaml", "test.yaml")
    )
    assert refused.exit_code == 1 and "The run 'small' needs a GPU" in refused.output
    assert accepted.exit_code == 0 and "needs a GPU" not in accepted.output


def test_a_clusters_job_asks_for_more_at_each_attempt(paper: Plan) -> None:
    small = requested(lambda: paper.training_job("bert", "malmen", [16], 1))
    first, second = (requested(lambda: paper.training_job("gptj", "malmen", [16384], 1), n) for n in (1, 2))
    assert first["gpu_mem_mb"] == second["gpu_mem_mb"] > 5 * small["gpu_mem_mb"] > 0
    assert first["runtime"] < second["runtime"] and small["mem_mb"] < first["mem_mb"] < second["mem_mb"]
    planned = paper.training_job("gptj", "malmen", [16384], 1)
    assert planned.seconds and first["runtime"] == pytest.approx(15 + 6 * planned.seconds / 60, abs=1)
    assert first["mem_mb"] == pytest.approx(planned.needs.memory / 1e6, abs=1)


def test_on_a_cpu_no_gpu_memory_is_asked_for() -> None:
    plan = Plan(load_file(CONFIGURATIONS / "test.yaml"))
    assert requested(lambda: plan.training_job("bert", "malmen", [16], 1))["gpu_mem_mb"] == 0


def test_a_model_of_unknown_size_asks_for_something() -> None:
    def unknown() -> Job:
        raise UserError("It is not known.")

    asked = requested(unknown)
    assert asked["mem_mb"] > 8000 and asked["runtime"] > 60
