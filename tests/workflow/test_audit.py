"""The audit of a whole run: it holds, and whatever is altered afterwards is found and named."""

import json
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workflow_project import Finished, Project

from malmen.audit.audit import Outcome, audit, check_plan
from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.drawings import check_drawings
from malmen.audit.planned import PlannedJob, planned_jobs
from malmen.audit.report import report
from malmen.audit.trail import Broken, Trail
from malmen.errors import UserError
from malmen.provenance.records import read_record, to_json

EDITOR = "results/test/editors/gpt2/malmen/m16_seed0/m16_seed0/editor.safetensors"
METRICS = "results/test/metrics/validation/gpt2/malmen/m16_seed0.json"
OTHER = "results/test/metrics/validation/gpt2/mend/m16_seed0.json"
QUESTIONS = "data/test/world/zsre/validation.jsonl"
RECORD = "results/test/records/train_editor/gpt2.malmen.16.0.json"
TABLE = "results/test/tables/table1.md"


@pytest.fixture(scope="module")
def project(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished run, whose files tests alter and put back."""
    folder = tmp_path_factory.mktemp("audited") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="module")
def planned(project: Project) -> list[PlannedJob]:
    """The jobs of its configuration."""
    return planned_jobs(project.folder / "config" / "demo.yaml", project.folder)


@contextmanager
def altered(project: Project, path: str, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Alter a file for a while."""
    file = project.folder / path
    before = file.read_bytes()
    after = change(before)
    assert after != before
    file.write_bytes(after)
    try:
        yield
    finally:
        file.write_bytes(before)


def one_byte(place: int) -> Callable[[bytes], bytes]:
    """Return what changes one bit of a file's byte."""
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def one_digit(content: bytes) -> bytes:
    """Change the last digit of the first number with decimals."""
    number = re.search(rb"\d\.\d+", content)
    assert number
    place = number.end() - 1
    return content[:place] + str((int(content[place : place + 1]) + 1) % 10).encode() + content[place + 1 :]


def audited(project: Project, planned: list[PlannedJob], absent_allowed: bool = False, draw: bool = False) -> Outcome:
    """Audit the copy; draw its figures and tables again if so wished."""
    trail = Trail("test", project.folder, absent_allowed)
    trail.check()
    check_plan(trail, planned)
    with tempfile.TemporaryDirectory() as scratch:
        check_code(trail, trail.records.values(), Commits(project.folder, Path(scratch)))
    remarks = check_drawings(trail, trail.records.values()) if draw else []
    return Outcome(trail, trail.links, trail.broken, remarks, "all")


def only(outcome: Outcome) -> Broken:
    """Return the only broken link."""
    (broken,) = outcome.broken
    return broken


def test_everything_holds(project: Project) -> None:
    run = project.run("malmen audit")
    assert run.status == 0, run.output
    assert "Everything holds: every number in results/test " in run.output
    links = re.search(r"^([\d,]+) links hold \((.*)\)\.$", run.output, re.M)
    assert links and int(links[1].replace(",", "")) > 1000
    kinds = {kind: int(count.replace(",", "")) for count, kind in re.findall(r"([\d,]+) ([a-z ]+)", links[2])}
    assert kinds["settings"] == kinds["seeds"] == kinds["code"] == kinds["records"]
    assert kinds["numbers"] > 300 and kinds["drawings"] >= 39


def test_the_target_of_snakemake_audits_the_configuration_in_use(project: Project) -> None:
    run = project.run("snakemake --cores 1 audit")
    assert run.status == 0 and "Everything holds" in run.output, run.output
    run = project.run("snakemake --cores 1 --config seeds=[0,7] -- audit")
    assert run.status == 1
    assert "has not been run" in run.output


def test_the_plan_is_snakemakes(project: Project, planned: list[PlannedJob]) -> None:
    records = {record.name: record for record in Trail("test", project.folder).records.values()}
    assert {job.name for job in planned} == set(records)
    for job in planned:
        record = records[job.name]
        assert (job.settings, job.code) == (record.settings, record.code)
        assert list(job.inputs) == [file.path for file in record.inputs]


def test_a_byte_of_a_data_set(project: Project, planned: list[PlannedJob]) -> None:
    with altered(project, QUESTIONS, one_byte(100)):
        outcome = audited(project, planned)
    broken = only(outcome)
    assert (broken.kind, broken.what, broken.job) == ("changed", QUESTIONS, "generate_world")
    assert f" ← {QUESTIONS}" in report(outcome)


def test_a_digit_of_a_table(project: Project, planned: list[PlannedJob]) -> None:
    with altered(project, TABLE, one_digit):
        broken = only(audited(project, planned, draw=True))
    assert (broken.kind, broken.what, broken.job) == ("changed", TABLE, "write_ablation/table1")
    assert "does not follow from its inputs: line " in broken.reason


def test_a_digit_of_a_table_whose_record_was_made_to_fit(project: Project, planned: list[PlannedJob]) -> None:
    record_file = "results/test/records/write_ablation/table1.json"
    record = read_record(project.folder / record_file)
    with altered(project, TABLE, one_digit):
        trail = Trail("test", project.folder)
        trail.hash_files(trail.expected)
        outputs = [o.model_copy(update={"sha256": trail.found.get(o.path, o.sha256)}) for o in record.outputs]
        forged = to_json(record.model_copy(update={"outputs": outputs}).sealed()).encode()
        with altered(project, record_file, lambda _: forged):
            found = {broken.what: broken for broken in audited(project, planned, draw=True).broken}
    assert {what: broken.kind for what, broken in found.items()} == {
        TABLE: "changed",
        "write_lineage": "stale",
        "write_index": "stale",
    }
    assert found[TABLE].reason.startswith("it does not follow from its inputs: line ")


def test_a_number_of_a_metrics_file(project: Project, planned: list[PlannedJob]) -> None:
    with altered(project, METRICS, one_digit):
        outcome = audited(project, planned, draw=True)
    assert (only(outcome).kind, only(outcome).what) == ("changed", METRICS)
    assert f"figures/figure5.pdf ← {METRICS}" in report(outcome)
    assert "results/test/tables/table1.md" in report(outcome)


def test_a_record(project: Project, planned: list[PlannedJob]) -> None:
    with altered(project, RECORD, lambda content: content.replace(b'"cpu_seconds": ', b'"cpu_seconds": 1')):
        broken = only(audited(project, planned))
    assert (broken.kind, broken.what) == ("changed", RECORD)


def test_a_record_with_a_fitting_seal_no_longer_fits_those_after_it(
    project: Project, planned: list[PlannedJob]
) -> None:
    record = read_record(project.folder / RECORD)
    settings = {**record.settings, "seeds": [1]}
    forged = to_json(record.model_copy(update={"settings": settings, "seeds": {"seeds": [1]}}).sealed()).encode()
    with altered(project, RECORD, lambda _: forged):
        outcome = audited(project, planned)
    kinds = {(broken.kind, broken.what) for broken in outcome.broken}
    assert kinds == {
        ("stale", "train_editor/gpt2.malmen.16.0"),
        ("stale", "evaluate_editor/validation.gpt2.malmen.16.0"),
        ("stale", "list_failures/gpt2.malmen.16.0"),
        ("stale", "edit_in_rounds/gpt2.malmen_memory.2x16.0"),
        ("stale", "write_rounds_costs/rounds_costs"),
        ("stale", "write_compute"),
        ("stale", "write_summary"),
        ("stale", "write_ablation/table2"),
    }
    assert "the seed seeds is [0] and was [1]" in report(outcome)


def test_a_setting(project: Project) -> None:
    with project.changed("config/demo.yaml", "label: First layer,", "label: First layer, training: {max_steps: 2},"):
        run = project.run("malmen audit")
    assert run.status == 1
    stale = set(re.findall(r"^stale: +(\S+)$", run.output, re.M))
    assert stale == {"train_editor/gpt2.first_layer.16.0", "evaluate_editor/validation.gpt2.first_layer.16.0"}
    assert "the setting settings.training.max_steps is 2 and was 3" in run.output
    assert "results/test/tables/table1.md" in run.output and "figures/" not in run.output


def test_a_source_file_may_have_changed_since(project: Project) -> None:
    file = "src/malmen/editing/memit/editor.py"
    labels = "labels=PARAMETERS.memory_labels,"
    with (
        project.changed(file, "\nimport torch\n", "\nimport torch, math\n"),
        project.changed("workflow/rules/figures.smk", labels, f"{labels} colour='red',"),
    ):
        run, again = project.run("malmen audit --json 2> /dev/null"), project.plan()
    report = json.loads(run.output)
    assert (run.status, report["holds"]) == (0, True)
    assert {name for one in report["code"] for name in one["changed_since"]} == {file}
    assert {one["job"]: one["settings_changed_since"] for one in report["code"] if one["settings_changed_since"]} == {
        "draw_memory/figure9": ["the setting colour is 'red' and was not set"]
    }
    targets = {"all", "figures", "tables", "summary"}
    assert Counter(name.partition("/")[0] for name in report["rerun"]) == {
        rule: number for rule, number in again.jobs.items() if rule not in targets
    }
    assert "results/test/figures/figure5.pdf" in report["results_of_rerun"] and not again.jobs["train_editor"]


def test_code_that_no_commit_holds(project: Project, planned: list[PlannedJob]) -> None:
    record = read_record(project.folder / RECORD)
    forged = record.model_copy(update={"code": {**record.code, "malmen.editing.malmen": "0" * 16}}).sealed()
    with altered(project, RECORD, lambda _: to_json(forged).encode()):
        broken = {(one.kind, one.what) for one in audited(project, planned).broken}
    assert ("changed", "train_editor/gpt2.malmen.16.0") in broken


def test_a_checkpoint(project: Project, planned: list[PlannedJob]) -> None:
    with altered(project, EDITOR, one_byte(-9)):
        outcome = audited(project, planned)
    assert (only(outcome).kind, only(outcome).what) == ("changed", EDITOR)
    rounds = "results/test/rounds/gpt2/malmen_memory/2x16_seed0.json"
    by = rf"affects \S+ ← ({METRICS}|{rounds}) ← results/test/editors/gpt2/malmen/m16_seed0;"
    assert re.search(by, report(outcome))


def test_the_outputs_of_two_runs_swapped(project: Project, planned: list[PlannedJob]) -> None:
    one, other = ((project.folder / path).read_bytes() for path in (METRICS, OTHER))
    with altered(project, METRICS, lambda _: other), altered(project, OTHER, lambda _: one):
        outcome = audited(project, planned)
    assert {broken.what: broken.kind for broken in outcome.broken} == {METRICS: "changed", OTHER: "changed"}
    assert f"(that of {OTHER}) and was" in report(outcome)
    assert f"(that of {METRICS}) and was" in report(outcome)


def kept(project: Project) -> list[str]:
    """Return all files of data and results that git or DVC keep."""
    found = [path for name in ("data/test", "results/test") for path in (project.folder / name).rglob("*")]
    names = [path.relative_to(project.folder) for path in found if path.is_file() and path.stat().st_size]
    return sorted(str(path) for path in names if not {"logs", "state"} & set(path.parts) and path.name[0] != ".")


def test_any_byte_of_any_file(project: Project) -> None:
    files = kept(project)
    assert {Path(path).suffix for path in files} >= {".jsonl", ".txt", ".json", ".safetensors", ".pdf", ".png", ".tex"}
    draws = random.Random(0)
    for _ in range(200):
        path = draws.choice(files)
        place = draws.randrange((project.folder / path).stat().st_size)
        with altered(project, path, one_byte(place)):
            trail = Trail("test", project.folder)
            trail.check()
        assert {broken.what for broken in trail.broken} == {path}
        assert {broken.kind for broken in trail.broken} == {"changed"}


def test_checkpoints_may_be_elsewhere(project: Project, tmp_path: Path, planned: list[PlannedJob]) -> None:
    folder = project.folder / "results" / "test" / "editors" / "gpt2" / "malmen" / "m16_seed0"
    shutil.move(folder, tmp_path / "elsewhere")
    try:
        whole, figures = audited(project, planned), audited(project, planned, absent_allowed=True, draw=True)
    finally:
        shutil.move(tmp_path / "elsewhere", folder)
    assert (whole.holds, figures.holds) == (False, True)
    assert {broken.kind for broken in whole.broken} == {"missing"}
    assert {broken.kind for broken in figures.broken} == {"not here"}
    assert EDITOR in {broken.what for broken in figures.broken}
    assert figures.counts["numbers"] > 300


def test_jobs_done_again_give_the_same_bytes(project: Project) -> None:
    run = project.run("malmen audit --rerun 2 --seed 3")
    assert run.status == 0, run.output
    again = re.findall(r" was repeated: (\d+) files? with the same bytes\.$", run.output, re.M)
    assert len(again) == 2 and any(map(int, again))  # measurements of memory are made again, but never alike


def test_the_chain_of_a_number_reaches_the_raw_data(project: Project) -> None:
    for question in ("table1 MALMEN GS", f"{TABLE}:malmen:GS", "'Table 1' MALMEN GS on GPT-2"):
        run = project.run(f"malmen audit {question}")
        assert run.status == 0, run.output
    value = json.loads((project.folder / METRICS).read_text())["runs"][0]["groups"]
    assert f"GS: mean {100 * sum(group['GS'] for group in value) / len(value):.6g}" in run.output
    for part in (
        METRICS,
        "by train_editor/gpt2.malmen.16.0",
        "by finetune_model/gpt2",
        "by generate_world",
        "m = 16, seed 0",
    ):
        assert part in run.output


def test_the_chain_of_a_number_in_a_changed_table_fails(project: Project) -> None:
    with altered(project, TABLE, one_digit):
        run = project.run("malmen audit table1 MALMEN GS")
    assert run.status == 1 and "Traceback" not in run.output
    assert "on disk: differs" in run.output and f"changed:    {TABLE}" in run.output


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("tabel1", ["names no result of test", "table1", "figure5"]),
        ("table1 GS", ["matches 5 numbers", "add the variant: sum_of_shifts, no_regularisation"]),
        ("figure5 memitt ES", ["no number for 'memitt ES'", "editor (ft, malmen, memit, mend)"]),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_can(project: Project, question: str, parts: list[str]) -> None:
    run = project.run(f"malmen audit {question}")
    assert run.status == 1 and "Traceback" not in run.output
    for part in parts:
        assert part in run.output


def test_an_audit_before_any_run_says_so_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^There are no results of test yet; run the workflow first\.$"):
        audit("test", tmp_path / "config" / "test.yaml", tmp_path)
