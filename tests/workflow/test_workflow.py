"""The whole workflow at its smallest size, in a copy of the project, through the command as a user types it.

The copy's default configuration is ``config/test.yaml``, and the package is the copy's own, so that it can be changed.
"""

import filecmp
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread
from workflow_project import COMMAND, RESULTS, Finished, Project

OVERVIEWS = ("write_lineage", "write_index", "write_explorer")
"""The rules that write pages about all results."""
HYPERNETWORKS = {"MALMEN", "MEND", "No regularisation", "First layer", "All tokens"}


def test_plan_touches_nothing(untouched: Project) -> None:
    before = untouched.state()
    plan = untouched.plan()
    assert plan.jobs == {
        "generate_world": 1,
        "pretrain_model": 3,
        "finetune_model": 2,
        "collect_covariance": 1,
        "train_editor": 8,
        "evaluate_editor": 11,
        "edit_in_rounds": 2,
        "measure_memory": 1,
        "draw_scaling": 2,
        "draw_residual": 1,
        "draw_memory": 1,
        "draw_rounds": 1,
        "draw_course": 1,
        "list_failures": 1,
        "write_ablation": 2,
        "write_comparison": 1,
        "write_failures": 2,
        "write_rounds_table": 1,
        "write_rounds_costs": 1,
        "write_published": 1,
        "write_compute": 1,
        "write_summary": 1,
        "write_after_malmen": 1,
        "write_lineage": 1,
        "write_index": 1,
        "write_explorer": 1,
        "all": 1,
    }
    assert untouched.state() == before
    assert not (untouched.folder / "results").exists()


@pytest.mark.parametrize(("name", "jobs"), [("realtext", 50), ("lifelong", 40), ("small", 114), ("paper", 713)])
def test_a_shipped_configuration_is_planned_with_nothing_to_set(untouched: Project, name: str, jobs: int) -> None:
    run = untouched.plan(f"snakemake -n --configfile config/{name}.yaml")
    assert sum(run.jobs.values()) == jobs


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--config devise=cuda", ["devise is not a known key", "device"]),
        ("--config seeds=[-3]", ["seeds.0", "-3", "greater than or equal to 0"]),
        ("--config 'editors={malmen: {last_blocks: 3}}'", ["last 3 of the layers", "the model has 2"]),
        ("--config 'tables={table1: {n_edits: 500}}'", ["m = 500", "72 tuples"]),
    ],
)
def test_a_broken_configuration_is_refused_in_sentences_before_any_job(
    untouched: Project, arguments: str, parts: list[str]
) -> None:
    run = untouched.run(f"snakemake --cores 1 {arguments}")
    assert run.status == 1
    sentences = [line for line in run.output.splitlines() if line.startswith("Configuration (")]
    parts = ["(config/demo.yaml and --config): ", *parts]
    assert any(all(part in sentence for part in parts) for sentence in sentences)
    assert "Traceback" not in run.output
    assert "Job stats" not in run.output
    assert not (untouched.folder / "results").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "There is no file broken.yaml; check the path."),
        ("seeds: [1\nb: }\n", "broken.yaml cannot be read as YAML or JSON (ParserError in line 2); correct it."),
        ("device: cuda\n", "Configuration (broken.yaml): run is missing; set it."),
    ],
)
def test_a_broken_configuration_is_named(untouched: Project, text: str | None, sentence: str) -> None:
    path = untouched.folder / "broken.yaml"
    if text:
        path.write_text(text, encoding="utf-8")
    run = untouched.run("snakemake -n --configfile broken.yaml")
    path.unlink(missing_ok=True)
    assert run.status == 1 and sentence in run.output and "Traceback" not in run.output


def test_a_target_that_does_not_exist_is_answered_with_those_that_do(untouched: Project) -> None:
    run = untouched.run("snakemake -n figure99")
    assert run.status == 1 and "No rule to produce figure99" in run.output
    assert re.search(
        rf"^Targets are .*summary, explorer, figures, tables, .* such as {RESULTS}/figures/figure4.pdf\.$",
        run.output,
        re.M,
    )


def test_a_failing_job_says_why_in_one_sentence(untouched: Project) -> None:
    run = untouched.run("snakemake --cores 1 --config run=broken 'data={world: {zsre_known: 9999999}}' -- data")
    assert run.status == 1
    errors = [line for line in run.output.splitlines() if line.startswith("  Error: ")]
    assert len(errors) == 1
    assert "9999999" in errors[0]
    assert "Traceback" not in run.output
    assert not list((untouched.folder / "data").glob("broken/**/*.jsonl"))


def test_the_literal_command_takes_minutes(finished: Finished) -> None:
    # Of computing time, which it spends on one core: the clock would also count what else this machine does. 150 s on
    # an idle machine; cores that share a cache with other tests take longer.
    assert finished.seconds < 300


def test_progress_is_shown(finished: Finished) -> None:
    output = finished.first.output
    assert finished.first.jobs["train_editor"] == 8
    assert "Job stats:" in output
    assert re.search(r"^\d+ of 51 steps \(\d+%\) done$", output, re.M)
    assert "Training MALMEN on BERT (test): m = 4-16, seed 0" in finished.first.messages
    assert "Editing with FT on BERT (test): m = 4-16, seed 0" in finished.first.messages
    assert "  MALMEN on BERT (test), m = 16, seed 0: done in 00:00" in output
    assert max(map(len, output.splitlines())) < 250
    assert "Loading weights" not in output
    assert f"Results: {RESULTS}/index.html " in output


def test_every_job_has_a_log(finished: Finished) -> None:
    jobs = sum(finished.first.jobs.values()) - 1  # "all" does nothing
    assert len(list(finished.path("logs").rglob("*.log"))) == jobs


@pytest.mark.parametrize(
    ("figure", "model", "dataset", "sizes"), [("figure4", "bert", "fever", {4, 16}), ("figure5", "gpt2", "zsre", {16})]
)
def test_figures(finished: Finished, figure: str, model: str, dataset: str, sizes: set[int]) -> None:
    assert finished.path("figures", f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    height, width, _ = imread(finished.path("figures", f"{figure}.png")).shape
    assert width > height > 200
    table = pd.read_csv(finished.path("figures", f"{figure}.csv"))
    assert list(table.columns) == ["model", "dataset", "editor", "n_edits", "seed", "metric", "value"]
    assert {"ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS"} <= set(table["metric"])
    assert set(table["model"]) == {model}
    assert set(table["dataset"]) == {dataset}
    assert set(table["editor"]) == {"ft", "mend", "malmen"} | ({"memit"} if model == "gpt2" else set())
    assert set(table["n_edits"]) == sizes
    assert set(table["seed"]) == {0}
    assert table["value"].between(0, 1).all()
    assert not table.duplicated(["editor", "n_edits", "seed", "metric"]).any()


def test_table1(finished: Finished) -> None:
    markdown, latex, page = (finished.path("tables", f"table1.{kind}").read_text() for kind in ("md", "tex", "html"))
    for text in (markdown, latex, page):
        for row in finished.config()["tables"]["table1"]["rows"]:
            assert row["label"] in text
    assert r"\toprule" in latex
    table = pd.read_csv(finished.path("tables", "table1.csv"))
    assert len(table) == 5 * 3
    assert table["paper_mean"].notna().all()
    assert table["mean"].notna().equals(table["variant"] != "no_regularisation")


def test_table2(finished: Finished) -> None:
    table = pd.read_csv(finished.path("tables", "table2.csv"))
    assert list(table["metric"][:6]) == ["ES", "GS", "LS", "training_hours", "editing_hours", "hours"]
    assert len(table) == 2 * 6
    hours = table.set_index(["variant", "metric"])["mean"]
    for variant in ("all_tokens", "malmen"):
        parts = hours[variant, "training_hours"], hours[variant, "editing_hours"]
        assert hours[variant, "hours"] == pytest.approx(sum(parts)) and min(parts) > 0


def test_table3(finished: Finished) -> None:
    table = pd.read_csv(finished.path("tables", "table3.csv"))
    ours = table[table["source"] == "this run"]
    assert set(zip(ours["column"], ours["n_edits"], strict=True)) == {("mend", m) for m in (5, 10)}
    assert ours["mean"].between(-1, 1).all()
    assert set(table["n_edits"]) == {5, 10, 25, 75, 125}


@pytest.mark.parametrize("name", ["table4", "table5"])
def test_tables_of_failures(finished: Finished, name: str) -> None:
    content = json.loads(finished.path("failures", "gpt2", "malmen", "m16_seed0.json").read_text())
    ids = [record["id"] for record in content["records"]]
    assert 0 < len(ids) <= 16
    table = pd.read_csv(finished.path("tables", f"{name}.csv"), keep_default_na=False, dtype=str)
    assert set(table["id"]) <= set(ids)
    failed = table["after_right"].eq("false").groupby(table["id"]).any()
    assert failed.all()
    markdown = finished.path("tables", f"{name}.md").read_text()
    assert markdown.count("| edit |") == min(3, table["id"].nunique())


def test_residual_and_memory(finished: Finished) -> None:
    for figure in ("figure8", "figure9"):
        assert finished.path("figures", f"{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert imread(finished.path("figures", f"{figure}.png")).shape[1] > 500
    residuals = pd.read_csv(finished.path("figures", "figure8.csv"))
    assert set(residuals["editor"]) == {"mend", "malmen"} and (residuals["value"] > 0).all()
    memory = pd.read_csv(finished.path("figures", "figure9.csv"))
    assert memory["computation"].tolist() == ["loaded", "separated", "concatenated"]
    assert (memory["peak_bytes"] > 2**26).all()


def test_costs_and_summary(finished: Finished) -> None:
    costs = pd.read_csv(finished.path("tables", "compute.csv"))
    ours = costs[costs["source"] == "this run"]
    assert set(zip(ours["model"], ours["editor"], strict=True)) >= {("bert", "ft"), ("gpt2", "malmen")}
    assert ours[ours["editor"] == "malmen"][["train_seconds", "edit_seconds", "total_seconds"]].gt(0).all(axis=None)
    summary = pd.read_csv(finished.path("summary.csv")).set_index("id")
    assert summary.loc["regularisation_needed", "verdict"] == "holds"
    assert summary.loc["above_memit", "model"] == "GPT-2 (test)"
    assert summary.loc["memory_grows_slowly", "verdict"] == "not measured in this run"  # at one m only
    assert summary.loc[["strongest_scalability"], "model"].tolist() == ["BERT (test)", "GPT-2 (test)"]


def test_a_training_that_diverges_is_a_result(finished: Finished) -> None:
    folder = finished.path("editors", "gpt2", "no_regularisation", "m16_seed0", "m16_seed0")
    record = json.loads((folder / "training.json").read_text())
    assert record["status"] == "diverged"
    assert "singular" in record["reason"]
    assert f"  No regularisation on GPT-2 (test), m = 16, seed 0: {record['reason']}" in finished.first.output


def test_models_are_ordinary_directories(finished: Finished) -> None:
    for model in ("bert", "gpt2"):
        names = {path.name for path in finished.path("models", model, "finetuned").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_a_second_run_does_nothing(finished: Finished) -> None:
    before = finished.state()
    for command in (COMMAND, "snakemake", "snakemake figures tables summary data models"):
        run = finished.run(command)
        assert run.status == 0
        assert "Nothing to be done" in run.output
    assert finished.state() == before


def test_files_dated_anew_re_run_nothing(finished: Finished) -> None:
    for path in (finished.folder / "data" / "test").rglob("*.jsonl"):
        path.touch()
    assert "Nothing to be done" in finished.plan().output


def test_an_editor_that_changes_re_runs_what_depends_on_it(finished: Finished) -> None:
    with finished.changed("config/demo.yaml", "label: First layer,", "label: First layer, training: {max_steps: 2},"):
        plan = finished.plan()
    assert plan.messages == {
        "Training First layer on GPT-2 (test): m = 16, seed 0",
        "Editing with First layer on GPT-2 (test): m = 16, seed 0",
        "Writing results/test/tables/table1.md",
        "Writing results/test/tables/compute.md",
        "Writing results/test/summary.md",
        "Writing results/test/lineage.html",
        "Writing results/test/index.html",
        "Writing results/test/explorer.html",
        "All figures and tables are up to date",
    }


def test_fine_tuning_that_changes_trains_nothing(finished: Finished) -> None:
    with finished.changed("config/demo.yaml", "finetuning: {epochs: 2}", "finetuning: {epochs: 3}"):
        plan = finished.plan()
    written = dict.fromkeys(("write_compute", "write_summary", *OVERVIEWS, "all"), 1)
    assert plan.jobs == {"evaluate_editor": 2, "draw_scaling": 2, **written}
    assert {message for message in plan.messages if "FT" in message} == {
        "Editing with FT on BERT (test): m = 4-16, seed 0",
        "Editing with FT on GPT-2 (test): m = 16, seed 0",
    }


def test_one_more_value_of_m_re_runs_only_its_own(finished: Finished) -> None:
    with finished.changed("config/demo.yaml", "n_edits: [4, 16]", "n_edits: [4, 16, 32]"):
        plan = finished.plan()
    written = dict.fromkeys(("draw_scaling", "write_compute", "write_summary", *OVERVIEWS, "all"), 1)
    assert plan.jobs == {"train_editor": 2, "evaluate_editor": 3, **written}
    assert all("m = 32" in message for message in plan.messages if message.startswith(("Training", "Editing")))


def test_a_style_that_changes_re_draws_figures_only(finished: Finished) -> None:
    with finished.changed("src/malmen/figures/style.py", "import seaborn as sns", "import seaborn as sns, math"):
        jobs = finished.plan().jobs
    overviews = dict.fromkeys(OVERVIEWS, 1)
    rounds = {"draw_rounds": 1, "draw_course": 1}
    assert jobs == {"draw_scaling": 2, "draw_residual": 1, "draw_memory": 1, **rounds, **overviews, "all": 1}


def test_a_sentence_that_changes_generates_the_world_again(finished: Finished) -> None:
    with finished.changed("src/malmen/data/world.yaml", "Where was {s} born?", "Where did {s} come from?"):
        assert finished.plan().jobs["generate_world"] == 1


def test_an_aggregation_that_changes_re_trains_editors_and_no_model(finished: Finished) -> None:
    with finished.changed("src/malmen/editing/aggregation.py", "\nimport torch\n", "\nimport torch, math\n"):
        plan = finished.plan()
    assert not {"generate_world", "pretrain_model", "finetune_model"} & set(plan.jobs)
    assert plan.jobs["train_editor"] == 8
    evaluated = {message for message in plan.messages if message.startswith("Editing with ")}
    assert {message.partition(" on ")[0].removeprefix("Editing with ") for message in evaluated} >= HYPERNETWORKS
    assert plan.jobs["draw_scaling"] == 2
    assert plan.jobs["draw_residual"] == plan.jobs["measure_memory"] == plan.jobs["write_comparison"] == 1


@pytest.mark.parametrize("dated", ["generate_world.py", "train_editor.py", "draw_scaling.py"])
def test_a_script_dated_anew_re_runs_nothing(finished: Finished, dated: str) -> None:
    script = f"workflow/scripts/{dated}"
    with finished.changed(
        script, "\nfrom malmen.jobs.job import job\n", "\nfrom malmen.jobs.job import job  # A remark.\n"
    ):
        assert "Nothing to be done" in finished.plan().output
    assert "Nothing to be done" in finished.plan().output  # its text is the old one, its date is new


def test_a_script_that_changes_re_runs_its_rule(finished: Finished) -> None:
    with finished.changed(
        "workflow/scripts/draw_scaling.py", "\nfrom malmen.jobs.job", "\nimport sys\nfrom malmen.jobs.job"
    ):
        assert finished.plan().jobs == {"draw_scaling": 2, "write_lineage": 1, "write_index": 1, "all": 1}


def test_without_a_gpu_nothing_that_is_made_is_lost(finished: Finished) -> None:
    before = finished.state()
    for_a_gpu = "CUDA_VISIBLE_DEVICES= snakemake --cores 1 --config device=cuda"
    run = finished.run(for_a_gpu)
    assert run.status == 1 and "The run 'test' needs a GPU" in run.output and "Traceback" not in run.output
    assert finished.state() == before
    assert finished.plan(f"{for_a_gpu} -n").jobs["train_editor"] == 8
    assert "Nothing to be done" in finished.run(f"{for_a_gpu} -- data").output


def test_a_comment_re_runs_nothing(finished: Finished) -> None:
    with finished.changed("src/malmen/editing/aggregation.py", "\nimport torch\n", "\nimport torch  # A remark.\n"):
        assert "Nothing to be done" in finished.plan().output


def test_a_configuration_on_the_command_line_replaces_the_default(finished: Finished) -> None:
    with finished.changed("config/demo.yaml", "seeds: [0]", "seeds: [0, 7]\nthreads: 2\ndevice: cuda"):
        assert "Nothing to be done" in finished.plan("snakemake -n --configfile config/test.yaml").output


def test_results_of_another_run_lie_elsewhere(finished: Finished) -> None:
    before = finished.state()
    run = finished.run("snakemake --cores 1 --config run=other -- data")
    assert run.status == 0, run.output
    after = finished.state()
    assert {path: after[path] for path in before} == before
    assert any("/data/other/" in path for path in after)
    assert len(finished.plan("snakemake -n --config run=other").jobs) == len(finished.first.jobs) - 1


def test_the_report_holds_figures_tables_and_captions(finished: Finished) -> None:
    run = finished.run("snakemake --report report.html")
    assert run.status == 0, run.output
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    files = ["figure4.png", "figure5.png", "figure8.png", "figure9.png", "table1.html"]
    files += ["compute.html", "summary.html", "lineage.html"]
    tables = [f"table{number}.html" for number in range(2, 6)]
    captions = (
        "Figure 4: BERT (test)",
        "Ablation study",
        "Figure 8: GPT-2 (test)",
        "Figure 9",
    )
    for part in (*files, *tables, *captions):
        assert part in page
    assert page.count("Where each number comes from: ") >= 11  # in every caption, with a link


def test_another_run_gives_the_same_bytes(finished: Finished, untouched: Project) -> None:
    results = ["figures/figure5.csv", "figures/figure5.png", "figures/figure5.pdf", "figures/course.csv"]
    run = untouched.run(f"snakemake --cores 2 {' '.join(str(RESULTS / name) for name in results)}")
    assert run.status == 0, run.output
    names = [
        path.relative_to(untouched.folder)
        for folder in ("data/test", "results/test")
        for path in (untouched.folder / folder).rglob("*")
        if path.is_file() and path.suffix != ".log" and "cost" not in path.name and not path.name.startswith(".")
    ]
    records = {path for path in names if "records" in path.parts}
    names = sorted({*names} - records)
    assert {"model.safetensors", "editor.safetensors", "m16_seed0.json", "train.jsonl"} <= {path.name for path in names}
    _, different, missing = filecmp.cmpfiles(untouched.folder, finished.folder, names, shallow=False)
    assert (different, missing) == ([], [])
    made = {path for path in records if path.parent.name != "environments"}
    first, second = (
        [digest_in(folder / path) for path in sorted(made)] for folder in (untouched.folder, finished.folder)
    )
    assert first == second and len(first) > 5


def digest_in(record: Path) -> str:
    """The part of a record that is the same in every run, as a digest."""
    digest: str = json.loads(record.read_text(encoding="utf-8"))["digest"]
    return digest


def test_the_explorer_is_written_again_by_a_command(finished: Finished, tmp_path: Path) -> None:
    page, copy = finished.path("explorer.html"), tmp_path / "copy.html"
    before = page.read_bytes(), finished.path("explorer.sources.json").read_bytes()
    assert finished.run("malmen explore").output == f"The page is {RESULTS}/explorer.html; open it in a browser.\n"
    assert (page.read_bytes(), finished.path("explorer.sources.json").read_bytes()) == before
    answers = finished.path("metrics", "validation", "gpt2", "malmen", "m16_seed0.answers.json")
    answers.rename(tmp_path / "answers.json")
    try:
        run = finished.run("malmen explore")
        assert run.status == 1 and "1 file of answers" in run.output and "--out" in run.output
        assert page.read_bytes() == before[0]
        assert finished.run(f"malmen explore --out {copy}").status == 0
        assert len(copy.read_bytes()) < len(before[0]) and not copy.with_name("copy.sources.json").exists()
    finally:
        (tmp_path / "answers.json").rename(answers)
