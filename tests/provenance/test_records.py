import json
import subprocess
from pathlib import Path

import pytest
from recorded import Job

from malmen.errors import UserError
from malmen.provenance import environment
from malmen.provenance.recording import Start, record_job, seeds_in, states
from malmen.provenance.records import (
    Environment,
    Record,
    environment_path,
    name_of,
    read_environment,
    read_record,
    read_records,
    record_files,
    write_schema,
)
from malmen.runtime.files import sha256
from malmen.runtime.noted import Notes

SCHEMA = Path(__file__).parents[2] / "workflow" / "schemas" / "record.schema.json"
MODEL = "results/p/models/tiny/pretrained"
METRICS = "results/p/metrics/m2_seed0.json"


class LaterRecord(Record):
    """A record of later code."""

    added: int = 0


class LaterEnvironment(Environment):
    """An environment of later code."""

    added: int = 0


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text("print(1)\n")
    return tmp_path


def write(contents: dict[str, str]) -> None:
    """Write files."""
    for name, content in contents.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)


def run(job: Job, contents: dict[str, str]) -> Record:
    """Write what a job makes, and record it."""
    write(contents)
    return read_record(record_job(job, Path("script.py").resolve(), Start(states(job.input))))


def make_model() -> Record:
    job = Job("pretrain", {}, {"": MODEL}, {"seed": 3, "code": {"malmen.runtime.files": "0"}}, {"model": "tiny"})
    return run(job, {f"{MODEL}/model.safetensors": "weights", f"{MODEL}/config.json": "{}"})


def measure(seconds: str = "1.0") -> Record:
    inputs: dict[str, str | list[str]] = {"model": MODEL, "trained": []}
    outputs = {"metrics": METRICS, "cost": METRICS.replace(".json", ".cost.json")}
    job = Job("evaluate", inputs, outputs, {"seeds": [0, 1], "sizes": (2, 8)}, {"model": "tiny", "seeds": "0-1"})
    return run(job, {outputs["metrics"]: "0.5", outputs["cost"]: seconds})


def test_a_record_says_what_made_what_and_its_inputs_lead_to_their_makers() -> None:
    made, measured = make_model(), measure()
    assert made.name == "pretrain/tiny" and measured.name == "evaluate/tiny.0-1"
    assert made.outputs[0].files == {name: sha256(Path(MODEL, name)) for name in ("config.json", "model.safetensors")}
    assert measured.inputs[0].maker is not None
    assert (measured.inputs[0].maker.name, measured.inputs[0].maker.digest) == (made.name, made.digest)
    assert measured.inputs[0].digests == made.outputs[0].digests
    assert measured.model == made.model and made.model is not None
    assert made.model.weights == sha256(Path(MODEL, "model.safetensors"))
    assert measured.settings == {"seeds": [0, 1], "sizes": [2, 8]}
    assert made.code == {"malmen.runtime.files": "0", "scripts/script.py": made.code["scripts/script.py"]}
    assert measured.input_names == {"model": 0, "trained": []} and measured.output_names == {"metrics": 0, "cost": 1}
    surroundings = read_environment(Path(f"results/p/records/environments/{made.circumstances.environment}.json"))
    assert surroundings.packages["pydantic"] and surroundings.gpu is None


def test_a_record_holds_what_the_job_noted_without_changing_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("malmen.provenance.recording.NOTES", Notes())
    plain = make_model()
    monkeypatch.setattr("malmen.provenance.recording.NOTES", Notes({"answers": {32, 8}}, {"q1": "Ada"}))
    noted = make_model()
    assert noted.circumstances.batch_sizes == {"answers": [8, 32]}
    assert noted.circumstances.uncertain_subjects == {"q1": "Ada"}
    assert noted.digest == plain.digest
    assert plain.circumstances.batch_sizes == {}


def test_two_runs_have_one_digest_although_times_differ() -> None:
    first, second = (make_model(), measure("1.0")), (make_model(), measure("2.0"))
    assert [record.digest for record in first] == [record.digest for record in second]
    assert first[1].seal != second[1].seal
    assert first[1].outputs[1].sha256 != second[1].outputs[1].sha256
    assert [output.measurements for output in first[1].outputs] == [[], [""]]


def test_what_is_drawn_from_measurements_holds_measurements() -> None:
    make_model()
    cost, table, copied = measure().outputs[1].path, "results/p/compute.csv", "results/p/copy.csv"
    drawn = run(Job("write", {"cost": cost}, {"csv": table}, {}, {}), {table: "1 s"})
    again = run(Job("copy", {"csv": table}, {"": copied}, {}, {}), {copied: ""})
    assert drawn.outputs[0].measurements == again.inputs[0].measurements == again.outputs[0].measurements == [""]


def test_any_change_of_a_result_changes_the_digests_of_all_that_follow() -> None:
    make_model()
    before = measure()
    job = Job("pretrain", {}, {"": MODEL}, {"seed": 4}, {"model": "tiny"})
    run(job, {})
    assert measure().digest != before.digest


@pytest.mark.parametrize("content", ["", "[]", '{"outputs": 3, "rule": "write"}', "\\", "[" * 100_000])
def test_what_is_no_record_is_left_out(content: str) -> None:
    made = make_model()
    write({"results/p/records/other/x.json": content})
    maker = measure().inputs[0].maker
    assert maker is not None and maker.digest == made.digest


def test_a_job_run_again_replaces_its_record_also_under_another_name() -> None:
    make_model()
    run(Job("pretrain_anew", {}, {"": MODEL}, {}, {"model": "tiny"}), {})
    assert [record.name for record in read_records("p")] == ["pretrain_anew/tiny"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "new.json"])
def test_an_input_that_changed_while_the_job_ran_is_named_and_nothing_recorded(name: str) -> None:
    make_model()
    job = Job("evaluate", {"model": MODEL}, {"": METRICS}, {}, {})
    start = Start(states(job.input))
    write({f"{MODEL}/{name}": "replaced", METRICS: "0.5"})
    with pytest.raises(UserError, match=f"{MODEL}/{name} changed while the job ran; run the same command again"):
        record_job(job, Path("script.py").resolve(), start)
    assert [record.name for record in read_records("p")] == ["pretrain/tiny"]


def test_an_input_that_is_gone_when_the_job_ends_is_named() -> None:
    make_model()
    job = Job("evaluate", {"model": MODEL}, {"": METRICS}, {}, {})
    start = Start(states(job.input))
    Path(MODEL, "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json changed while the job ran"):
        record_job(job, Path("script.py").resolve(), start)


def test_snakemakes_own_file_in_a_directory_does_not_count() -> None:
    before = make_model()
    Path(MODEL, ".snakemake_timestamp").touch()
    assert make_model().outputs == before.outputs


def test_no_byte_of_a_record_can_change_unnoticed() -> None:
    make_model()
    measure()
    (path,) = (path for path in record_files("p") if path.parent.name == "evaluate")
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(UserError, match=str(path)):
            read_record(path)
    path.write_bytes(content)
    read_record(path)


def test_records_and_environments_of_before_a_field_was_added_stay_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_model()
    (path,) = (path for path in record_files("p") if path.parent.name == "pretrain")
    environment_file = environment_path("p", made.circumstances.environment)
    monkeypatch.setattr("malmen.provenance.records.Record", LaterRecord)
    monkeypatch.setattr("malmen.provenance.records.Environment", LaterEnvironment)
    assert isinstance(read_record(path), LaterRecord)
    assert isinstance(read_environment(environment_file), LaterEnvironment)
    for file in (path, environment_file):
        file.write_text(file.read_text().replace('": "', '":  "', 1))
    with pytest.raises(UserError, match="changed"):
        read_record(path)
    with pytest.raises(UserError, match="changed"):
        read_environment(environment_file)


def test_an_environment_is_guarded_by_its_name() -> None:
    make_model()
    (path,) = Path("results/p/records/environments").iterdir()
    path.write_text(path.read_text().replace('"pydantic": "', '"pydantic": "9'))
    with pytest.raises(UserError, match="has been changed"):
        read_environment(path)


def test_seeds_are_found_at_any_depth() -> None:
    assert seeds_in({"seed": 1, "split": {"seed": 2, "train": 3}, "seeds": [4]}) == {
        "seed": 1,
        "split.seed": 2,
        "seeds": [4],
    }


def test_the_checkout_is_a_commit_with_the_code_that_differs_from_it(tmp_path: Path) -> None:
    assert environment.checkout() == (None, None)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a b.py").write_text("1")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "src"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "r").write_text("1")
    assert environment.checkout() == (head, [])
    (tmp_path / "src" / "a b.py").write_text("2")
    (tmp_path / "src" / "new.py").write_text("2")
    assert environment.checkout() == (head, ["src/a b.py", "src/new.py"])


def test_the_schema_in_the_repository_is_that_of_the_classes(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema")
    assert (tmp_path / "schema").read_text() == SCHEMA.read_text()
    assert json.loads(SCHEMA.read_text())["properties"]["outputs"]["description"]


def test_a_cache_has_one_name_whoever_asks_for_it() -> None:
    asked = {"model": "gpt2", "editor": "malmen", "split": "validation"}
    by_an_evaluation = {"split": "validation", "model": "gpt2", "editor": "malmen"}
    names = {name_of("cache_base_outputs", wildcards) for wildcards in (asked, by_an_evaluation)}
    assert names == {"cache_base_outputs/gpt2.malmen.validation"}
    assert name_of("evaluate_editor", by_an_evaluation) == "evaluate_editor/validation.gpt2.malmen"
