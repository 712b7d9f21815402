"""The audit of one number of a table checks all that it shows: page, map of sources, metrics, records, files."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import pytest
from metrics_files import group, ok, write_metrics
from recorded import Job
from typer.testing import CliRunner

from malmen.audit.audit import Outcome
from malmen.audit.part import explain
from malmen.audit.report import report
from malmen.audit.trail import Trail
from malmen.cli import app
from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.setting import Setting
from malmen.provenance.recording import Start, record_job, states

REPOSITORY = Path(__file__).parents[2]
MODEL, METRICS = "results/demo/models/gpt2/finetuned", "results/demo/metrics"
PAGE, SOURCES = "results/demo/tables/table1.md", "results/demo/tables/table1.sources.json"
FILES = [f"{METRICS}/gpt2-malmen-{seed}.json" for seed in (0, 1)]
QUESTION = ["table1", "MALMEN", "ES", "gpt2"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model, the metrics of two seeds, and Table 1, as the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("workflow").symlink_to(REPOSITORY / "workflow")
    Path("config").symlink_to(REPOSITORY / "config")
    weights = Path(MODEL, "model.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    record("finetune_model", {}, {"model": MODEL}, model="gpt2")
    for seed, successes in enumerate([(0.5, 0.7), (0.9, 0.9)]):
        write_metrics(Path(METRICS), ok(64, *(group(0.25, ES=success) for success in successes)), seed=seed)
        record("evaluate_editor", {"model": MODEL}, {"metrics": FILES[seed]}, model="gpt2", seed=str(seed))
    rows = [{"variant": "malmen", "label": "MALMEN", "metrics": FILES, "costs": {}}]
    data = {"zsre": "zsRE-like (synthetic)"}
    params = {"rows": rows, "n_edits": 64, "data": data, "setting": {"note": "Tiny models."}}
    stem = Path(PAGE).with_suffix("")
    stem.parent.mkdir(parents=True)
    write_ablation(
        [AblationRow("malmen", "MALMEN", tuple(map(Path, FILES)))], 64, None, data, stem, Setting("Tiny models.")
    )
    outputs = {name: f"{stem}.{name}" for name in ("md", "tex", "csv", "html")}
    record(
        "write_ablation", {"metrics": FILES, "published": []}, {**outputs, "sources": SOURCES}, params, table="table1"
    )
    return tmp_path


def record(
    rule: str,
    inputs: dict[str, str | list[str]],
    outputs: dict[str, str | list[str]],
    params: dict[str, object] | None = None,
    **wildcards: str,
) -> None:
    """Write the record of a job whose files are there."""
    job = Job(rule, inputs, outputs, params or {}, wildcards)
    record_job(job, Path("workflow/scripts", f"{rule}.py").resolve(), Start(states(job.input)))


def asked() -> tuple[str, Outcome]:
    return explain(QUESTION, Trail("demo"))


def replaced(path: str, old: str, new: str) -> None:
    """Replace the first place of a text in a file."""
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_all_is_well_and_the_mean_can_be_checked_by_eye() -> None:
    text, outcome = asked()
    assert outcome.broken == [] and outcome.holds
    assert f"  ES: mean 75, std {stdev([60, 90]):.6g}\n" in text
    assert "    m = 64, seed 0: ES 60\n" in text and "    m = 64, seed 1: ES 90\n" in text
    assert outcome.counts["drawings"] == 4 and outcome.counts["records"] == 4


def test_weights_are_said_to_be_read_or_made() -> None:
    text, _ = asked()
    (made,) = {line.partition("made the weights ")[2] for line in text.splitlines() if "made the weights" in line}
    read = [line.partition("read the weights ")[2] for line in text.splitlines() if "read the weights" in line]
    assert made and read == [made, made]


@pytest.mark.parametrize("path", [PAGE, FILES[1], f"{MODEL}/model.safetensors", SOURCES])
def test_a_changed_file_is_named(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(" ")
    text, outcome = asked()
    assert [(one.kind, one.what) for one in outcome.broken] == [("changed", path)]
    assert not outcome.holds and text.count("on disk: differs") == 1


def test_another_number_in_the_table_is_named_with_that_of_the_metrics() -> None:
    replaced(PAGE, "75.0", "85.0")
    (broken,) = asked()[1].broken
    assert broken.what == PAGE and "85.0" in broken.reason and "75.0" in broken.reason


def test_another_number_in_the_map_of_sources_is_named_with_that_of_the_metrics() -> None:
    replaced(SOURCES, '"mean": 75.0', '"mean": 85.0')
    reasons = [broken.reason for broken in asked()[1].broken if broken.what == SOURCES]
    assert any("mean 85.0" in reason and "75.0" in reason for reason in reasons)


def test_changed_metrics_break_the_number_that_is_shown() -> None:
    replaced(FILES[0], '"ES": 0.5', '"ES": 0.7')
    text, outcome = asked()
    assert "seed 0: ES 70\n" in text
    assert {one.what for one in outcome.broken} == {FILES[0], SOURCES}


@pytest.mark.parametrize("name", ["evaluate_editor/gpt2.0", "finetune_model/gpt2"])
def test_a_changed_record_is_named(name: str) -> None:
    path = f"results/demo/records/{name}.json"
    replaced(path, '"seconds": ', '"seconds": 1')
    (broken,) = [one for one in asked()[1].broken if one.kind == "changed"]
    assert broken.what == path and path in broken.reason


def test_the_changed_record_of_the_table_itself_is_named() -> None:
    replaced("results/demo/records/write_ablation/table1.json", '"seconds": ', '"seconds": 1')
    result = CliRunner().invoke(app, ["audit", *QUESTION])
    assert result.exit_code == 1 and "write_ablation/table1.json" in result.output


def test_a_removed_record_is_named() -> None:
    Path("results/demo/records/evaluate_editor/gpt2.0.json").unlink()
    assert ("unrecorded", FILES[0]) in [(one.kind, one.what) for one in asked()[1].broken]


@pytest.mark.parametrize("path", [PAGE, FILES[1], f"{MODEL}/model.safetensors"])
def test_a_missing_file_is_named(path: str) -> None:
    Path(path).unlink()
    text, outcome = asked()
    assert [(one.kind, one.what) for one in outcome.broken] == [("missing", path)]
    assert text.count("on disk: missing") == 1


def test_checkpoints_may_be_absent_where_that_is_said() -> None:
    Path(MODEL, "model.safetensors").unlink()
    assert CliRunner().invoke(app, ["audit", *QUESTION]).exit_code == 1
    assert CliRunner().invoke(app, ["audit", *QUESTION, "--figures-only"]).exit_code == 0
    Path(f"{MODEL}.dvc").write_text("outs: []")  # They are published, and need not be here.
    answer = CliRunner().invoke(app, ["audit", *QUESTION])
    assert (
        answer.exit_code == 0 and "1 file is not here" in answer.output and "    | on disk: not here" in answer.output
    )


@pytest.mark.parametrize(
    ("change", "code"), [(lambda: None, 0), (lambda: replaced(PAGE, "75.0", "85.0"), 1)], ids=["well", "changed"]
)
def test_the_exit_code_and_the_verdict_are_those_of_the_links(change: Callable[[], None], code: int) -> None:
    change()
    result = CliRunner().invoke(app, ["audit", *QUESTION])
    assert result.exit_code == code
    assert (PAGE in report(asked()[1])) == bool(code)


@pytest.mark.parametrize("option", [["--rerun", "1"], ["--sign", "key"], ["--signers", "file"]])
def test_options_of_a_whole_audit_are_refused(option: list[str]) -> None:
    result = CliRunner().invoke(app, ["audit", *QUESTION, *option])
    assert result.exit_code == 1 and option[0] in result.output


def test_the_costs_of_each_run_are_shown() -> None:
    costs = "results/demo/editors/m64.cost.json"
    Path(costs).parent.mkdir(parents=True)
    Path(costs).write_text(json.dumps([{"run": {"n_edits": 64, "seed": 0}, "seconds": 2.5, "peak_bytes": 7}]))
    entry = {"of": {"editor": "malmen"}, "values": {"total_seconds": 2.5}, "how": "means", "from": {costs: [[64, 0]]}}
    sources = "results/demo/tables/compute.sources.json"
    Path(sources).write_text(json.dumps({"result": "compute", "files": {}, "numbers": [entry]}))
    record("train_editor", {}, {"cost": costs}, model="gpt2")
    record("write_compute", {"costs": [costs]}, {"sources": sources})
    text, _ = explain(["compute", "malmen", "total_seconds"], Trail("demo"))
    assert "    m = 64, seed 0: seconds 2.5, peak_bytes 7\n" in text
