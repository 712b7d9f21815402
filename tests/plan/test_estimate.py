"""What a configuration is expected to cost: hours worked out by hand, the paper's grid, and the command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from malmen.cli import app
from malmen.config.configuration import Config
from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.load import load, load_file
from malmen.config.memit import MemitEditorSettings
from malmen.errors import UserError
from malmen.plan.estimate import PUBLISHED, Plan, Rates, hours, models_to_pin
from malmen.plan.flops import EditorWork, Work

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config" / "paper.yaml"
TEST = ROOT / "config" / "test.yaml"


@pytest.fixture(scope="module")
def paper() -> Config:
    return load_file(PAPER)


@pytest.fixture(scope="module")
def plan(paper: Config) -> Plan:
    return Plan(paper)


def powers(first: int, last: int) -> list[int]:
    return [2**exponent for exponent in range(first, last + 1)]


def test_the_papers_grid(paper: Config) -> None:
    assert paper.seeds == [0, 1, 2]
    figures = {name: (figure.model, figure.editors) for name, figure in paper.figures.curves.items()}
    assert figures["figure4"] == ("bert", ["ft", "mend", "malmen"])
    assert figures["figure5"] == ("gpt2", ["ft", "mend", "memit", "malmen"])
    assert figures["figure7"] == ("gptj", ["ft", "mend", "memit", "malmen"])
    assert set(figures["figure6"][1]) >= {"ft", "mend", "malmen"}
    grids = {"bert": powers(4, 12), "gpt2": powers(6, 12), "t5": powers(8, 14), "gptj": powers(5, 14)}
    for model, sizes in grids.items():
        assert paper.models[model].n_edits == sizes and paper.sizes(model, "ft") == sizes
    assert paper.sizes("gpt2", "malmen") == powers(5, 13)
    assert paper.sizes("gptj", "all_tokens") == [8192] and paper.sizes("bert", "first_layer") == [512]
    assert paper.sizes("bart", "mend") == [5, 25, 75, 125]
    assert paper.figures.figure9 and paper.figures.figure9.n_edits == powers(5, 13)
    assert paper.tables == ["table1", "table2", "table3", "table4", "table5"]


def test_the_papers_settings(paper: Config) -> None:
    for model in paper.models.values():
        assert model.dtype == ("bfloat16" if model.registry in ("t5-xl", "gpt-j") else "float32")
        for name in ("malmen", "mend"):
            settings = model.editors[name]
            assert isinstance(settings, HyperNetworkEditorSettings)
            network, training = settings.hypernetwork, settings.training
            assert (network.rank, network.blocks, network.learning_rate) == (1920, 2, 1e-6)
            assert (training.meta_learning_rate, training.steps(244_173, 16_384)) == (1e-5, 14)
        ft = model.editors["ft"]
        assert isinstance(ft, FineTuningEditorSettings)
        assert ft.finetuning == FineTuningSettings(epochs=5, learning_rate=5e-4, weight_decay=5e-4)
    layers = {
        name: [(editor.ffn_layers, editor.blocks or editor.last_blocks) for editor in chosen]
        for name, model in paper.models.items()
        if (chosen := [model.editors["malmen"], model.editors["mend"], model.editors["ft"]])
    }
    second, both = ("second",), ("first", "second")
    assert layers["bert"] == layers["gpt2"] == [(second, 6), (second, 6), (both, 3)]
    assert layers["t5"] == [(second, 3), (second, 3), (both, 2)]
    assert layers["gptj"] == [(second, 6), (second, 6), (second, (21,))]
    assert layers["bart"][1] == (both, 2)
    official = paper.models["t5"].editors["official_layers"]
    assert (official.ffn_layers, official.last_blocks) == (both, 2)
    memit = paper.models["gptj"].editors["memit"]
    assert isinstance(memit, MemitEditorSettings)
    assert memit.blocks == (3, 4, 5, 6, 7, 8) and memit.memit.covariance_weight == 15_000


def test_the_papers_jobs(plan: Plan) -> None:
    jobs = {rule: len(found) for rule, found in plan.by_rule().items()}
    assert jobs["fetch_model"] == 5 and jobs["finetune_model"] == 2 and jobs["collect_covariance"] == 2
    assert jobs["evaluate_editor"] == jobs["train_editor"] + 3 * (9 + 7 + 7 + 10 + 7 + 10)  # FT and MEMIT
    trained = [job for job in plan.jobs if job.rule == "train_editor" and job.model == "bert"]
    assert len(trained) == 3 * (2 * 9 + 3)
    assert all(job.seconds for job in plan.jobs if job.on_gpu)
    assert all(job.on_gpu for job in plan.jobs if job.model and job.rule != "fetch_model")


def test_hours_are_operations_over_rates(paper: Config) -> None:
    rates = Rates(float32=5, bfloat16=50, start_seconds=7, load_gigabytes=2)
    plan = Plan(paper, rates)
    work = EditorWork(plan.networks["gptj"], paper.models["gptj"].editors["malmen"])
    malmen = paper.models["gptj"].editors["malmen"]
    assert isinstance(malmen, HyperNetworkEditorSettings)
    n_steps = malmen.training.steps(241_732, 16_384)
    step = work.meta_step(16_384)
    expected = 7 + plan.networks["gptj"].parameters * 2 / 2e9
    expected += n_steps * (step.model / 50e12 + step.float32 / 5e12)
    about = ("train_editor", "gptj", "malmen", (16_384,))
    found = [job.seconds for job in plan.jobs if (job.rule, job.model, job.editor, job.sizes) == about]
    assert found == [pytest.approx(expected)] * 3  # seeds
    assert rates.seconds(Work(1e12, 1e12), "float32") == 0.4


def test_the_papers_times_are_as_many_times_the_estimate_as_is_said(paper: Config, plan: Plan) -> None:
    published = pd.read_csv(ROOT / "data" / "published" / "compute.csv").set_index("editor")["total_seconds"]
    times = {}
    for name, n_steps in (("malmen", 244_173 // 16_384), ("memit", 0)):
        work = EditorWork(plan.networks["gptj"], paper.models["gptj"].editors[name])
        training = n_steps * work.meta_step(16_384) if n_steps else Work()
        seconds = plan.rates.seconds(work.edit(16_384) + training, "bfloat16")
        times[name] = published[name] / seconds
    assert times == {"malmen": pytest.approx(12, abs=0.5), "memit": pytest.approx(6, abs=0.5)}
    assert "twelve (MALMEN) and six (MEMIT) times" in PUBLISHED


def test_a_measurement_edits_every_whole_group(paper: Config) -> None:
    raw = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    some = load({**raw, "evaluation": {"max_groups": 3}})
    editor = EditorWork(Plan(paper).networks["gpt2"], paper.models["gpt2"].editors["ft"])
    scoring = Work(model=3 * editor.network.forward)
    everything = Plan(paper).evaluation(editor, "gpt2", [64, 4096])
    assert everything == 27_644 * scoring + 431 * (editor.edit(64) + 64 * scoring) + 6 * (
        editor.edit(4096) + 4096 * scoring
    )
    assert Plan(some).evaluation(editor, "gpt2", [64]) == 3 * 64 * scoring + 3 * (editor.edit(64) + 64 * scoring)


def test_figures_and_tables_say_what_they_need(plan: Plan) -> None:
    targets = plan.by_target()
    assert list(targets) == [*(f"figure{i}" for i in range(4, 10)), *(f"table{i}" for i in range(1, 6))]
    assert {job.editor for job in targets["figure7"]} == {"ft", "mend", "memit", "malmen"}
    assert len(targets["figure4"]) == 3 * 9 * (1 + 2 + 2)
    assert {job.sizes for job in targets["table2"]} == {(8192,)}
    assert {job.rule for job in targets["table4"]} == {"train_editor", "list_failures"}
    assert hours(targets["figure7"]) > hours(targets["figure5"]) > 0


def test_several_sizes_and_seeds_share_a_job() -> None:
    raw: dict[str, Any] = yaml.safe_load(TEST.read_text(encoding="utf-8"))
    one, shared = (
        Plan(load({**raw, "jobs": {"sizes": 1}, "seeds": [0, 1]})),
        Plan(load({**raw, "jobs": {"sizes": 9, "seeds": 2}, "seeds": [0, 1]})),
    )
    trainings = [
        [job for job in plan.jobs if (job.rule, job.model, job.editor) == ("train_editor", "bert", "malmen")]
        for plan in (one, shared)
    ]
    assert [len(jobs) for jobs in trainings] == [4, 1]
    starts = 3 * (one.rates.start_seconds + one.networks["bert"].parameters * 4 / 1e9)
    assert hours(trainings[0]) - hours(trainings[1]) == pytest.approx(starts / 3600)


def test_an_unknown_shape_is_named() -> None:
    raw: dict[str, Any] = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    ffn = {"first": ["a"], "second": ["b"]}
    raw["models"]["gptj"] |= {"registry": None, "pretrained": "lab/model", "ffn": ffn}
    with pytest.raises(UserError, match=r"gptj costs cannot be estimated; set models\.gptj\.shape\.$"):
        _ = Plan(load(raw)).jobs


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_says_what_it_rests_on(plan: Plan) -> None:
    output = run("--configfile", str(PAPER))
    assert re.search(rf"^total +{len(plan.jobs)} +{hours(plan.jobs):,.1f} ", output, re.M)
    assert re.search(r"^download_source +4 +- +- +- ", output, re.M)
    assert "operation counts at 10 TFLOP/s in float32 and 60 in bfloat16" in output and "never measured" in output
    assert "Before it can be run, set models.bert.revision, models.gpt2.revision" in output
    slower = run("--configfile", str(PAPER), "--float32-tflops", "5", "--bfloat16-tflops", "30")
    assert "operation counts at 5 TFLOP/s in float32 and 30 in bfloat16" in slower
    totals = [float(re.findall(r"^total +\d+ +([\d,.]+)", text, re.M)[0].replace(",", "")) for text in (output, slower)]
    assert totals[0] < totals[1] < 2 * totals[0]


def test_a_model_from_scratch_needs_no_revision() -> None:
    assert models_to_pin(load_file(TEST)) is None
    assert "device: cpu" in run("--configfile", str(TEST))


@pytest.mark.parametrize("text", [None, "- a", "a: [", "profile: 3"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    result = CliRunner().invoke(app, ["plan", "--configfile", str(tmp_path / "c.yaml")])
    assert result.exit_code == 1 and result.output.startswith("Error: ") and "Traceback" not in result.output


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules |= {'torch': None, 'transformers': None}\n"
        f"from malmen.cli import app; app(['plan', '--configfile', {str(PAPER)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr


def test_rebuilding_is_planned_by_corpus_and_part() -> None:
    raw = yaml.safe_load(TEST.read_text(encoding="utf-8"))
    raw["data"] |= {"source": "rebuild", "rebuild": {"parts": 3, "filter": {"fever": "bert"}}}
    plan = Plan(load(raw))
    jobs = list(plan.data())
    assert {rule: [job.rule for job in jobs].count(rule) for rule in {job.rule for job in jobs}} == {
        "download_source": 7,
        "fetch_translator": 2,
        "select_originals": 2,
        "list_finetuning_data": 3,
        "back_translate": 6,
        "filter_rephrasings": 3,
        "choose_alternatives": 1,
        "pair_tuples": 3,
    }
    fever, zsre = plan.translation_job("fever"), plan.translation_job("zsre")
    work = plan.rates.seconds(Work(model=2 * 75e6 * 5 * plan.lengths.sequence * 6), "float32")
    assert fever.seconds == pytest.approx(2 * plan.rates.start_seconds + (104_966 + 10_444) / 3 * work)
    assert fever.seconds and zsre.seconds and zsre.seconds > fever.seconds
    with pytest.raises(UserError, match="the size of its data set is not known"):
        _ = plan.jobs
