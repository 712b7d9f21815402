"""What a machine holds against what a run needs."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malmen.audit.planned import Step
from malmen.cli import app
from malmen.config.load import load_file
from malmen.plan import machine as capacity
from malmen.plan.estimate import Known
from malmen.plan.jobs import CostedJob, Total
from malmen.plan.machine import Capacity, too_few_gpus
from malmen.plan.memory import Needs

CONFIGURATIONS = Path(__file__).parents[2] / "config"
LARGE = Capacity(disk=1e12, memory=1e12, gpu=1e12)


RUNS = (
    ("train_editor", "malmen", "gptj", "16384"),
    ("evaluate_editor", "memit", "gptj", "16384"),
    ("collect_covariance", "memit", "gptj", ""),
    ("fetch_model", "", "gptj", ""),
    ("draw_scaling", "", "", ""),
)


def costed(known: Known, rule: str, editor: str = "", model: str = "", n_edits: str = "") -> CostedJob:
    """A job of one seed on the validation split."""
    about = {"editor": editor, "model": model, "n_edits": n_edits}
    wildcards = {**{name: value for name, value in about.items() if value}, "seeds": "0", "split": "validation"}
    return CostedJob.of(Step(rule=rule, wildcards=wildcards), known)


@pytest.fixture(scope="module")
def known() -> Known:
    return Known(load_file(CONFIGURATIONS / "paper.yaml"))


@pytest.fixture(scope="module")
def jobs(known: Known) -> list[CostedJob]:
    return [costed(known, *run) for run in RUNS]


def test_what_fits_is_not_refused(jobs: list[CostedJob]) -> None:
    needed = Total.of(jobs)
    exactly = Capacity(needed.disk, needed.memory, needed.least)
    assert LARGE.shortage("paper", jobs) is None and exactly.shortage("paper", jobs) is None
    assert Capacity(disk=1e12, memory=None, gpu=None).shortage("paper", jobs) is None
    assert Capacity(disk=0, memory=0, gpu=0).shortage("paper", []) is None


@pytest.mark.parametrize(
    ("capacity", "parts"),
    [
        (replace(LARGE, gpu=24e9), ["evaluate_editor (memit on gptj at m = 16384)", "GPU memory", "24.0"]),
        (replace(LARGE, memory=16e9), ["collect_covariance (memit on gptj)", "main memory", "16.0"]),
        (replace(LARGE, disk=9e9), ["disk", "9.0"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(
    jobs: list[CostedJob], capacity: Capacity, parts: list[str]
) -> None:
    sentence = capacity.shortage("paper", jobs) or ""
    for part in ("'paper'", "check_machine: false", *parts):
        assert part in sentence
    assert [what for what in ("GB of GPU memory", "GB of main memory", "GB of disk") if what in sentence] == [
        f"GB of {parts[-2]}"
    ]


def test_of_a_spread_model_a_gpu_holds_its_share(known: Known) -> None:
    def needs(**spread: object) -> Needs:
        model = known.config.models["gptj"].model_copy(update=spread)
        config = known.config.model_copy(update={"models": {**known.config.models, "gptj": model}})
        return costed(Known(config), "train_editor", "malmen", "gptj", "32").cost.needs

    whole, spread, shared = needs(), needs(device_map="auto", gpus=2), needs(gpus=2)
    assert whole.least - spread.least == pytest.approx(1.25 * known.network("gptj").parameters * 2 / 2)
    assert whole.memory == spread.memory == shared.memory / 2
    # Half of the rows of 32 edits, of three tokens each, and the factors of three of six layers, of 96 rows each.
    rows = 6 * 16 * 3 * (16_384 + 4096) * 4
    assert whole.device - shared.device == pytest.approx(1.25 * (rows + 3 * 96**2 * 8))


def with_gpus(known: Known, gpus: int) -> list[CostedJob]:
    """Jobs of models of which GPT-J's take so many GPUs."""
    gptj = known.config.models["gptj"].model_copy(update={"gpus": gpus})
    config = known.config.model_copy(update={"models": {**known.config.models, "gptj": gptj}})
    return [costed(Known(config), *run) for run in (("train_editor", "malmen", "bert", "64"), RUNS[0], RUNS[-1])]


def test_a_job_that_cannot_get_its_gpus_is_named_in_one_sentence(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    job = r"^train_editor \(malmen on gptj at m = 16384\) takes 4 GPUs, "
    four = with_gpus(known, 4)
    assert re.search(f"{job}and this machine has 3; set the model's gpus to 3\\.$", too_few_gpus(four, 4) or "")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")  # inside an allocation of two such machines
    assert too_few_gpus(four, 4) is None and "these 2 nodes have 6" in (too_few_gpus(with_gpus(known, 8), 8) or "")
    monkeypatch.delenv("SLURM_JOB_NUM_NODES")
    few = f"{job}but jobs are given 1; add --resources gpu=4\\.$"
    assert re.search(few, too_few_gpus(four, 1, here=False) or "")
    assert too_few_gpus(four, 4, here=False) is None and too_few_gpus(four, here=False) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # there may be some that only torch finds
    assert too_few_gpus(four) is None and "add --resources gpu=4" in (too_few_gpus(four, 2) or "")
    assert too_few_gpus(with_gpus(known, 1), 1) is None and too_few_gpus([]) is None


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
