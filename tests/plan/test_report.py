"""The plan as text: its times, what each figure needs, the command, and that docs/scaling.md shows it as it is."""

import re
import subprocess
import sys
from pathlib import Path

import plans_in_docs
import pytest
from typer.testing import CliRunner

from malmen.cli import app
from malmen.config.load import load_file
from malmen.plan import report
from malmen.plan.estimate import COSTS, Known, Time
from malmen.plan.jobs import CostedJob, Total, plan
from malmen.plan.order import in_order
from malmen.plan.report import duration

ROOT = Path(__file__).parents[2]
PAPER, TEST = (ROOT / "config" / f"{name}.yaml" for name in ("paper", "test"))


@pytest.fixture(scope="module")
def jobs() -> list[CostedJob]:
    """The paper's."""
    return plan(PAPER, Known(load_file(PAPER)))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.3, 0.6, "1 s"),
        (5, 59, "5-59 s"),
        (40, 80, "1 min"),
        (600, 1200, "10-20 min"),
        (3600, 7100, "60-118 min"),
        (3600, 7200, "1.0-2.0 h"),
        (2612 * 3600, 5224 * 3600, "2,600-5,200 h"),
    ],
)
def test_a_time_is_a_range_in_minutes_or_hours(low: float, high: float, text: str) -> None:
    assert duration(Time(low, high)) == text


def test_the_papers_jobs(jobs: list[CostedJob]) -> None:
    numbers = {rule: sum(job.rule == rule for job in jobs) for rule in COSTS}
    assert numbers["fetch_model"] == 5 and numbers["finetune_model"] == 2 and numbers["collect_covariance"] == 2
    assert numbers["evaluate_editor"] == numbers["train_editor"] + 3 * (9 + 7 + 7 + 10 + 7 + 10)  # FT and MEMIT
    assert sum(job.rule == "train_editor" and job.job.wildcards["model"] == "bert" for job in jobs) == 3 * (2 * 9 + 3)
    assert all(job.cost.time for job in jobs if job.cost.on_gpu)


def test_figures_and_tables_say_what_they_need_and_when_they_are_there(jobs: list[CostedJob]) -> None:
    lines = report.table_by_target(jobs).splitlines()[1:]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(rows) == {*(f"figure{i}" for i in range(4, 10)), *(f"table{i}" for i in range(1, 6))}
    assert int(rows["figure4"][0]) == 3 * 9 * (1 + 2 + 2) + 1  # BERT is fine-tuned first
    assert int(rows["table4"][0]) == 2 and rows["figure7"][2] == "h"
    assert list(rows) == [target.name for target in in_order(jobs)] and rows["figure9"][1:3] == rows["figure9"][3:]
    assert lines[-1].startswith("figure7") and lines[-1].endswith(f" {duration(Total.of(jobs).time)}")


def test_the_table_adds_up(jobs: list[CostedJob]) -> None:
    lines = report.table(jobs, load_file(PAPER).models).splitlines()
    counts = {line[:19].rstrip(): int(line[19:24]) for line in lines[1:] if not line.startswith(" ")}
    assert counts.pop("total") == sum(counts.values()) == len(jobs)
    assert lines[-1][24:38].strip() == duration(Total.of(jobs).time)


@pytest.mark.parametrize("name", ["small", "paper", "reduced"])
def test_the_documented_plan_is_the_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    reduced = name == "reduced"
    block = plans_in_docs.documented_reductions() if reduced else plans_in_docs.documented(name)
    assert block in page, "The plan has changed: run tools/plans_in_docs.py."


def test_what_is_missing_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = CliRunner().invoke(app, ["plan", "--configfile", str(PAPER), "--bfloat16-tflops", "30"])
    assert result.exit_code == 0, result.output
    first, rest = result.output.split("\n\n", 1)
    assert first.startswith("The run 'paper' needs a GPU")
    assert re.search(r"^The run 'paper' takes 7\d\d jobs, .* h, at most .* GB of GPU memory", first, re.M)
    assert rest.startswith("rule ") and "30 in bfloat16" in rest


@pytest.mark.parametrize("text", [None, "- a", "a: [", "run: 3"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    result = CliRunner().invoke(app, ["plan", "--configfile", str(tmp_path / "c.yaml")])
    assert result.exit_code == 1 and result.output.startswith("Error: ")


@pytest.mark.parametrize("named", [["test"], ["config/test.yaml"], ["--configfile", "config/test.yaml"]])
def test_a_configuration_is_named_in_a_word_or_by_its_file(named: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["plan", *named])
    assert result.exit_code == 0 and "The run 'test' takes 50 jobs" in result.output, result.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["plan", "papr"], "demo, lifelong, lifelong_real, paper"),
        (["audit", "--configfile", "config/test.yaml", "demo"], "demo"),
        (["restore", "demo", "--configfile", "config/test.yaml"], "config/test.yaml"),
        (["crate", "a", "b", "c"], "a b c"),
    ],
)
def test_a_configuration_that_is_not_there_or_named_twice_is_refused(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and result.output.startswith("Error: ") and named in result.output


def test_planning_needs_no_torch_and_no_figures(tmp_path: Path) -> None:
    raw = TEST.read_text(encoding="utf-8")
    figures = re.search(r"^figures:.*", raw, re.M | re.S)
    assert figures
    (tmp_path / "bare.yaml").write_text(raw.replace(figures[0], ""), encoding="utf-8")
    code = (
        "import sys; sys.modules |= {'torch': None, 'transformers': None}\n"
        f"from malmen.cli import app; app(['plan', '--configfile', {str(tmp_path / 'bare.yaml')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr


def sizes(table: str | None) -> dict[str, str]:
    """The second column of a table of downloads."""
    return {line.split()[0]: line[19:30].strip() for line in (table or "").splitlines()[1:]}


def test_what_is_fetched_is_listed_by_model(jobs: list[CostedJob]) -> None:
    config = load_file(PAPER)
    table = report.table_of_downloads(jobs, config)
    expected = {"bert": "0.4", "gpt2": "0.5", "t5": "11.4", "gptj": "24.2", "bart": "0.6", "data": "0.4"}
    assert sizes(table) == {**expected, "total": "37.6"}
    assert table and re.search(r"^gptj +24\.2 +8 min$", table, re.M) and "at 50 MB/s" in table
    assert "37.6 GB to fetch (13 min at 50 MB/s)" in report.summary(jobs, "cuda")


def test_what_is_there_is_not_fetched_and_an_unknown_size_is_about(jobs: list[CostedJob], tmp_path: Path) -> None:
    config = load_file(PAPER, {"models": {"bert": {"download_bytes": None}, "bart": {"pretrained": str(tmp_path)}}})
    (tmp_path / "results" / "paper" / "models" / "gptj" / "fetched").mkdir(parents=True)
    left = [job.in_folder(tmp_path) for job in jobs if job.job.wildcards.get("model") != "bart"]
    found = sizes(report.table_of_downloads(left, config))
    assert found["gptj"] == found["bart"] == "0" and found["gpt2"] == "0.5"
    assert found["bert"] == "about 0.4" and found["total"].startswith("about 12")


def test_nothing_is_said_of_downloads_where_there_are_none() -> None:
    known = Known(load_file(TEST))
    assert report.table_of_downloads(plan(TEST, known), known.config) is None


def test_a_plan_says_on_how_many_gpus_its_jobs_run(jobs: list[CostedJob]) -> None:
    config = load_file(PAPER, {"models": {"gptj": {"gpus": 8}}})
    known = Known(config)
    shared = [CostedJob.of(job.job, known) for job in jobs]
    assert " with a model on a GPU: " in report.summary(jobs, "cuda") and "on one GPU," in report.order(jobs)
    assert " on up to 8 GPUs: " in report.summary(shared, "cuda") and "on up to 8 GPUs," in report.order(shared)
    assert "share a job (gptj: 8)" in report.basis(known) and "share" not in report.basis(Known(load_file(PAPER)))


def test_the_largest_jobs_are_named(jobs: list[CostedJob]) -> None:
    said = report.largest(jobs)
    assert said and said.startswith(
        "The largest jobs are evaluate_editor (memit on gptj at m = 16384), which needs 37.9"
    )
    assert said.endswith("and collect_covariance (memit on gptj), which needs 35.6 GB of main memory.")
    of_bert = [job for job in jobs if job.rule == "finetune_model" and job.job.wildcards["model"] == "bert"]
    assert report.largest(of_bert) == (
        "The largest job, finetune_model (bert), needs 2.5 GB of GPU memory and 4.7 GB of main memory."
    )
    assert report.largest([]) is None


def planned(*arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_values_are_replaced_as_snakemake_replaces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    changes = ["seeds=[0,1]", "models={bert: {n_edits: [4]}}"]
    config = load_file(TEST, {"seeds": [0, 1], "models": {"bert": {"n_edits": [4]}}})
    jobs = plan(TEST, Known(config), {"seeds": ["0", "1"], "models": {"bert": {"n_edits": ["4"]}}})
    whole = planned("test", "--config", *changes)
    assert f"\nThe run 'test' takes {len(jobs)} jobs, " in f"\n{whole}" and len(jobs) > 50
    assert planned("--config", changes[0], "--config", changes[1], "--configfile", str(TEST)) == whole
    last = whole.splitlines()[-1]
    assert last.startswith("With --config ... 'seeds=[0]' the run takes 50 jobs and ")


def test_the_reduced_run_is_what_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    last = planned("small").splitlines()[-1]
    found = re.fullmatch(r"With --config 'seeds=\[0\]' the run takes (\d+) jobs and (.*)\.", last)
    assert found
    fewer = planned("small", "--config", "seeds=[0]")
    assert re.search(rf"^The run 'small' takes {found[1]} jobs, .*: {found[2]}, at most ", fewer, re.M)
    assert "seeds=" not in fewer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "models.gptj.n_edits=[512]"], "write KEY=VALUE"),
        (["--config", "seeds=[-3]"], "and --config: seeds.0 is"),
        (["seeds=[0]"], "Name one configuration, and not test seeds=[0]"),
    ],
)
def test_what_snakemake_would_refuse_is_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["plan", "test", *arguments])
    assert result.exit_code == 1 and result.output.startswith("Error: ") and said in result.output, result.output
