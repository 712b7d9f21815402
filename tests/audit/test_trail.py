"""The audit's parts, on a project of four made-up jobs: a data set, a model, a measurement, a table."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from recorded import Job

from malmen.audit.audit import Outcome, differences_of
from malmen.audit.code_check import file_of
from malmen.audit.drawings import check_drawings
from malmen.audit.lineage import single
from malmen.audit.page import write_lineage
from malmen.audit.part import explain
from malmen.audit.planned import PlannedJob
from malmen.audit.report import report
from malmen.audit.report_file import AuditReport, write_schema
from malmen.audit.rerun import compared, rerun, sample, within_tolerances
from malmen.audit.signature import check_signature, sign
from malmen.audit.trail import Broken, Link, Trail
from malmen.errors import UserError
from malmen.provenance.recording import Start, record_job, states
from malmen.provenance.records import Determinism, Record, read_record, record_path, to_json
from malmen.results.sources import Shown
from malmen.runtime.code_digest import code_digest

DATA, MODEL, METRICS = "data/p/world/train.jsonl", "results/p/models/tiny/finetuned", "results/p/metrics/m2.json"
TABLE, SOURCES = "results/p/tables/table1.csv", "results/p/tables/table1.sources.json"
PUBLISHED = "data/published/table1.csv"
MODULE = "malmen.made_up"
SCRIPT = "workflow/scripts/script.py"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, as the working directory."""
    monkeypatch.chdir(tmp_path)
    write(SCRIPT, "for path, text in snakemake.params['contents'].items(): open(path, 'w').write(text)\n")
    write("src/malmen/made_up.py", "NUMBER = 1\n")
    write(PUBLISHED, "99.3")
    run("generate", {}, [DATA], {DATA: "facts"})
    run("teach", {"taught": DATA}, [MODEL], {f"{MODEL}/model.safetensors": "weights"}, model="tiny")
    run("evaluate", {"model": MODEL, "tuples": DATA}, [METRICS], {METRICS: "0.5"}, model="tiny")
    entry = {"of": {"editor": "malmen", "model": "gpt2", "n_edits": 2}, "values": {"ES": 0.5, "GS": 0.25}}
    paper = {**entry, "of": {"editor": "malmen", "source": "paper"}, "how": "as published", "from": {PUBLISHED: []}}
    numbers = [{**entry, "how": "mean over seeds", "from": {METRICS: [[2, 0]]}}, paper]
    contents = {TABLE: "ES,0.5\n", SOURCES: json.dumps({"result": "table1", "files": {}, "numbers": numbers})}
    run("write", {"metrics": METRICS, "published": PUBLISHED}, [TABLE, SOURCES], contents)
    return tmp_path


PARAMS: dict[str, Any] = {"seed": 1}
"""Parameters that all jobs have."""


def write(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)


def run(
    rule: str, inputs: dict[str, str | list[str]], outputs: list[str], contents: dict[str, str], **wildcards: str
) -> None:
    """Let a job make files, and record it."""
    for path, content in contents.items():
        write(path, content)
    params = {**PARAMS, "contents": contents, "code": code_digest(MODULE, root=Path("src/malmen"))}
    job = Job(rule, inputs, {"made": outputs}, params, wildcards)
    record_job(job, Path(SCRIPT).resolve(), Start(states(job.input)))


def found(absent_allowed: bool = False) -> list[tuple[str, str, str]]:
    """Return what an audit of the files finds: kind, what, job."""
    trail = Trail("p", absent_allowed=absent_allowed)
    trail.check()
    return [(broken.kind, broken.what, broken.job) for broken in trail.broken]


def test_all_links_of_an_untouched_project_hold() -> None:
    trail = Trail("p")
    trail.check()
    assert trail.broken == []
    assert Outcome(trail, trail.links, [], [], "all").counts == {
        "records": 4,
        "files": 5,
        "inputs": 5,
        "environments": 4,
    }
    assert Link("files", METRICS, "evaluate/tiny") in trail.links


def test_the_report_for_programs_holds_every_link_with_its_verdict() -> None:
    write(METRICS, "0.6")
    trail = Trail("p")
    trail.check()
    said = AuditReport.of(Outcome(trail, trail.links, trail.broken, ["remark"], "all"))
    assert AuditReport.model_validate_json(said.model_dump_json()) == said
    assert not said.holds and said.exit_code == 1 and said.remarks == ["remark"]
    broken, *others = said.links
    assert (broken.verdict, broken.what, broken.job) == ("changed", METRICS, "evaluate/tiny")
    assert broken.affects == [[TABLE, METRICS]] and broken.reason and "SHA-256" in broken.reason
    assert {link.verdict for link in others} == {"holds"}
    assert sum(link.count for link in others) == sum(said.counts.values()) == 17


def test_the_schema_of_the_report_in_the_repository_is_that_of_the_class(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema")
    root = Path(__file__).parents[2]
    assert (tmp_path / "schema").read_text() == (root / "workflow/schemas/audit.schema.json").read_text()


def test_a_cache_may_be_deleted_and_is_not_made_again() -> None:
    cache = "results/p/cache/tiny/train"
    run("cache_base_outputs", {"model": MODEL}, [cache], {f"{cache}/index.json": "{}"}, model="tiny")
    run("train", {"cache": [cache]}, [f"{cache}_used"], {f"{cache}_used": "weights"}, model="tiny")
    shutil.rmtree(cache)
    assert found() == [("not here", f"{cache}/index.json", "cache_base_outputs/tiny")]
    trail = Trail("p")
    assert {record.rule for record in sample(trail, 4, seed=0)} == {"generate", "teach", "evaluate", "write"}
    with pytest.raises(UserError, match=r"--rerun 5 .* 4 jobs"):
        sample(trail, 5, seed=0)


def test_a_missing_file_is_missing_or_not_here() -> None:
    shutil.rmtree(MODEL)
    assert found() == [("missing", f"{MODEL}/model.safetensors", "teach/tiny")]
    assert found(absent_allowed=True) == [("not here", f"{MODEL}/model.safetensors", "teach/tiny")]
    Path(TABLE).unlink()
    assert ("missing", TABLE, "write") in found(absent_allowed=True)


def test_what_tables_are_written_from_may_not_be_absent_unless_dvc_keeps_it() -> None:
    Path(METRICS).unlink()
    assert found(absent_allowed=True) == [("missing", METRICS, "evaluate/tiny")]
    write(f"{METRICS}.dvc", "outs: []")
    assert found(absent_allowed=True) == [("not here", METRICS, "evaluate/tiny")]
    assert found() == [("missing", METRICS, "evaluate/tiny")]


def test_the_report_names_what_is_wrong_and_counts_what_is_not_here() -> None:
    shutil.rmtree(MODEL)
    trail = Trail("p", absent_allowed=True)
    trail.check()
    said = report(Outcome(trail, trail.links, trail.broken, [], "it"))
    assert "1 file is not here, and need not be; `malmen restore --full`" in said and MODEL not in said
    assert said.endswith("Everything that is here holds: it leads back to its raw data.")
    write(METRICS, "0.6")
    trail.hash_files([METRICS])
    trail.check()
    assert "1 link is broken: 1 changed." in report(Outcome(trail, trail.links, trail.broken, [], "it"))


def test_a_drawing_that_is_not_repeated_is_reported() -> None:
    Path(METRICS).unlink()
    trail = Trail("p", absent_allowed=True)
    trail.check()
    (remark,) = check_drawings(trail, trail.records.values())
    assert remark.startswith("1 drawing job was not repeated")


@pytest.mark.parametrize("path", [f"{MODEL}/extra.json", "results/p/metrics/m3.json", "data/p/world/more.jsonl"])
def test_a_file_that_no_job_made_is_unrecorded(path: str) -> None:
    write(path, "new")
    assert [(kind, what) for kind, what, _ in found()] == [("unrecorded", path)]


def test_published_numbers_are_checked_although_no_job_made_them() -> None:
    write(PUBLISHED, "99.9")
    assert found() == [("changed", PUBLISHED, "write")]


def test_a_job_done_again_with_another_result_makes_what_followed_stale() -> None:
    run("teach", {"taught": DATA}, [MODEL], {f"{MODEL}/model.safetensors": "other weights"}, model="tiny")
    assert found() == [("stale", "evaluate/tiny", "evaluate/tiny")]


def test_a_job_done_again_with_the_same_result_breaks_nothing() -> None:
    run("teach", {"taught": DATA}, [MODEL], {f"{MODEL}/model.safetensors": "weights"}, model="tiny")
    assert found() == []


@pytest.mark.parametrize(("again", "broken"), [("tuples", []), ("others", [("stale", "read/tiny", "read/tiny")])])
def test_a_download_may_be_repeated_if_it_gives_the_same_bytes(
    again: str, broken: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, read = "data/raw/zsre_locft", "data/p/read.jsonl"
    run("download_source", {}, [raw], {raw: "tuples"}, name="zsre_locft")
    run("read", {"source": raw}, [read], {read: "1"}, model="tiny")
    before = record_of("download_source/zsre_locft")
    monkeypatch.setitem(PARAMS, "timeout", 2)  # as another version of the code may set it
    run("download_source", {}, [raw], {raw: again}, name="zsre_locft")
    assert record_of("download_source/zsre_locft").digest != before.digest
    assert found() == broken


def test_a_removed_record_is_noticed_by_what_follows() -> None:
    Path("results/p/records/teach/tiny.json").unlink()
    assert ("unrecorded", MODEL, "evaluate/tiny") in found()


def test_a_record_in_a_wrong_place_is_refused() -> None:
    shutil.copy("results/p/records/teach/tiny.json", "results/p/records/teach/other.json")
    assert ("changed", "results/p/records/teach/other.json", "teach/other") in found()


def test_a_changed_or_missing_environment_is_named() -> None:
    (path,) = Path("results/p/records/environments").iterdir()
    content = path.read_text()
    path.write_text(content + " ")
    assert [(kind, what) for kind, what, _ in found()] == [("changed", str(path))]
    path.unlink()
    assert [(kind, what) for kind, what, _ in found()] == [("missing", str(path))]


def test_lineages_lead_from_every_result_that_depends_on_a_file() -> None:
    run("draw", {"metrics": METRICS}, ["results/p/figures/figure4.pdf"], {"results/p/figures/figure4.pdf": "%PDF"})
    trail = Trail("p")
    assert trail.lineages("generate", DATA) == [
        ["results/p/figures/figure4.pdf", METRICS, DATA],
        [TABLE, METRICS, DATA],
    ]
    assert trail.lineages("write") == [[TABLE]]
    assert trail.lineages("nothing") == [[]]


def record_of(name: str) -> Record:
    return Trail("p").records[name]


def planned(record: Record, **changes: Any) -> PlannedJob:
    """Return the job of a record as it would be run now, with changes."""
    same = {
        "rule": record.rule,
        "wildcards": record.wildcards,
        "settings": record.settings,
        "code": record.code,
        "inputs": tuple(file.path for file in record.inputs),
        "outputs": tuple(file.path for file in record.outputs),
    }
    return PlannedJob(**same | changes)


def test_differences_from_the_plan_are_named() -> None:
    record = record_of("teach/tiny")
    record = record.model_copy(update={"settings": {"shape": {"layers": 2, "old": True}, "seed": 1, "seeds": [0]}})
    assert not any(differences_of(record, planned(record)).values())
    now = {"shape": {"layers": 3, "new": [1]}, "seed": 2, "seeds": [0, 1]}
    said = differences_of(record, planned(record, settings=now, inputs=("a",)))
    assert said["settings"] == [
        "the setting shape.layers is 3 and was 2",
        "the setting shape.new is [1] and was not set",
        "the setting shape.old was True and is not set any more",
    ]
    assert said["seeds"] == ["the seed seed is 2 and was 1", "the seed seeds is [0, 1] and was [0]"]
    assert said["files of jobs"] == [f"its inputs differ: a was added, {DATA} was removed"]


def test_modules_and_scripts_are_named_by_their_files() -> None:
    root = Path(__file__).parents[2]
    assert file_of("malmen.editing.memit.editor", root) == "src/malmen/editing/memit/editor.py"
    assert file_of("malmen.data", root) == "src/malmen/data/__init__.py"
    assert file_of("malmen.gone", root) == "src/malmen/gone.py"
    assert file_of("scripts/train_editor.py", root) == "workflow/scripts/train_editor.py"


def lineage(*words: str) -> str:
    """Return the lineage of files that are as recorded."""
    text, outcome = explain(words, Trail("p"))
    assert outcome.holds and "on disk" not in text
    return text


def test_a_number_is_explained_back_to_the_data() -> None:
    text = lineage("table1", "MALMEN", "on", "GPT-2:", "GS")
    assert f"{TABLE}: editor malmen, model gpt2, n_edits 2\n  GS: 0.25\n  (mean over seeds)\nFrom 1 run:" in text
    assert f"  {METRICS}\n    m = 2, seed 0\n" in text
    places = [text.index(part) for part in ("by evaluate/tiny", "by teach/tiny", "by generate", "by write")]
    assert places == sorted(places)
    assert "model tiny (trained from scratch), made the weights " in text and "ES:" not in text
    assert "data/published" in lineage("table1", "paper")


def test_a_file_is_explained_also_inside_a_directory() -> None:
    text = lineage(f"./{MODEL}/model.safetensors")
    assert text.startswith(f"{MODEL} (sha256 ") and f"{DATA} (sha256 " in text and "by evaluate" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel"], "'tabel'.* p; .* table1"),
        (["table1", "mend"], "'mend'; .* editor \\(malmen\\); .* ES, GS"),
        ([METRICS, "ES"], METRICS),
    ],
)
def test_a_question_without_an_answer_says_what_there_is(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        explain(words, Trail("p"))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ([("malmen", 8), ("malmen", 64)], "'GS' matches 2 numbers of t.md; add the m: 8 or 64."),
        (
            [("malmen", 8), ("ft", 8), ("mend", 9)],
            "3 numbers of t.md; add the editor: malmen, ft or mend; the m: 8 or 9.",
        ),
    ],
)
def test_a_question_with_several_answers_says_what_to_add(of: list[tuple[str, int]], message: str) -> None:
    numbers = [Shown(of={"editor": editor, "m": m}, values={"GS": 0.5}, how="read", runs={}) for editor, m in of]
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        single(numbers, "t.md", ["GS"], [])


def test_before_there_are_results_a_question_is_told_so() -> None:
    shutil.rmtree("results/p/records")
    with pytest.raises(UserError, match=r"no results of p "):
        explain(["table1"], Trail("p"))


def test_a_failed_audit_says_what_to_do_and_names_the_first_few() -> None:
    trail = Trail("p")
    trail.broken = [Broken("missing", f"train/{number}", "not run", f"train/{number}") for number in range(8)]
    text = report(Outcome(trail, trail.links, trail.broken, [], "all"))
    assert "train/4\n            and 3 more\n" in text and "train/5" not in text
    *_, verdict, advice = text.splitlines()
    assert verdict == "8 links are broken: 8 missing." and "`snakemake PATH`" in advice
    trail.broken = trail.broken[:1]
    assert "1 link is broken: 1 missing." in report(Outcome(trail, trail.links, trail.broken, [], "all"))


def test_the_page_leads_from_numbers_to_jobs() -> None:
    write_lineage("p", [Path(SOURCES)], "Tiny models.", Path("lineage.html"))
    page = Path("lineage.html").read_text()
    assert f'<a href="#evaluate/tiny"><code>{METRICS}</code></a> m = 2, seed 0' in page
    for name, read in (("evaluate/tiny", MODEL), ("teach/tiny", DATA), ("generate", None)):
        _, found, part = page.partition(f'<section id="{name}">')
        part = part.partition("</section>")[0]
        ran = record_of(name).circumstances
        assert found and (read is None or f"<code>{read}</code></a> (<code>" in part)
        assert ran.started in part and (ran.commit or "unknown")[:12] in part
    assert "<p>Made at an unknown commit (3 jobs). What has changed since, <code>malmen audit</code> says.</p>" in page
    assert "<h4>Teach: tiny</h4>" in page and "Tiny models." in page


def test_the_page_is_folded_and_every_link_in_it_leads_somewhere() -> None:
    write_lineage("p", [Path(SOURCES)], "", Path("lineage.html"))
    page = Path("lineage.html").read_text()
    targets = set(re.findall(r' id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= targets and {"table1", "jobs.tiny", "jobs.data", "evaluate/tiny"} <= links
    assert {"table1.0", "table1.1", "search"} <= targets
    assert page.count("<details") == page.count("</details>") == 5  # the table, ours and the paper's; jobs of two kinds
    assert "http" not in page.partition("<main>")[0]


def test_numbers_may_differ_within_tolerances_and_no_further(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text('{"ES": 0.5, "residual": [100.0, null], "status": "ok"}')
    new.write_text('{"ES": 0.515, "residual": [104.0, null], "status": "ok"}')
    assert within_tolerances(old, new)
    for content in ('{"ES": 0.53, "residual": [100.0, null], "status": "ok"}', '{"ES": 0.5}', "[]", "", "[" * 100_000):
        new.write_text(content)
        assert not within_tolerances(old, new)
    tables = tmp_path / "old.csv", tmp_path / "new.csv"
    tables[0].write_text("metric,value\nES,0.5\nGS,\n")
    tables[1].write_text("metric,value\nES,0.51\nGS,\n")
    assert within_tolerances(*tables)
    tables[1].write_text("metric,value\nLS,0.5\nGS,\n")
    assert not within_tolerances(*tables)


def on_gpu(name: str) -> Record:
    """Let a job have run on a GPU, and return its record."""
    flags = Determinism(device="cuda", threads=1, deterministic_algorithms=True, cublas_workspace=":4096:8")
    record = record_of(name).model_copy(update={"determinism": flags}).sealed()
    record_path(record).write_text(to_json(record))
    return record


def test_only_what_is_here_is_run_again() -> None:
    assert len(sample(Trail("p"), 4, seed=0)) == 4
    Path(MODEL, "model.safetensors").unlink()
    assert {record.name for record in sample(Trail("p"), 3, seed=0)} == {"generate", "evaluate/tiny", "write"}
    shutil.rmtree(MODEL)
    with pytest.raises(UserError, match=r"--rerun 3 .* 2 jobs"):
        sample(Trail("p"), 3, seed=0)


def test_jobs_of_a_gpu_are_run_again_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu("teach/tiny")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("malmen.audit.rerun.sample", lambda *_: [])
    (remark,) = rerun(Trail("p"), 1, 0)
    assert remark.startswith("1 job ran on a GPU")
    assert "teach/tiny" not in {record.name for record in sample(Trail("p"), 3, seed=0)}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert rerun(Trail("p"), 1, 0) == []
    assert len(sample(Trail("p"), 4, seed=0)) == 4


def test_what_a_gpu_made_may_differ_within_tolerances(tmp_path: Path) -> None:
    write(str(tmp_path / "again" / METRICS), "0.51")
    trail = Trail("p")
    assert "0 files with the same bytes." in compared(record_of("evaluate/tiny"), trail, tmp_path / "again")
    assert [broken.what for broken in trail.broken] == [METRICS]
    record, trail = on_gpu("evaluate/tiny"), Trail("p")
    assert "0 files with the same bytes, 1 within tolerances." in compared(record, trail, tmp_path / "again")
    assert trail.broken == []


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A throw-away SSH key."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(path)], check=True)
    return path


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_a_signature_shows_who_signed_and_that_nobody_has_rewritten_since(key: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    signers.write_text(f"author@example.org {public}\n")
    assert check_signature("p", None) is None
    assert sign("p", key).name == "root.sha256.sig"
    assert "Good" in (check_signature("p", None) or "")
    assert "author@example.org" in (check_signature("p", signers) or "")
    record = record_of("write")
    forged = record.model_copy(update={"settings": {"seed": 2}}).sealed()
    record_path(record).write_text(to_json(forged))
    assert read_record(record_path(record)) == forged  # the seal alone shows nothing
    with pytest.raises(UserError, match=r"root\.sha256\.sig does not sign"):
        check_signature("p", signers)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_a_removed_signature_does_not_pass(key: Path, tmp_path: Path) -> None:
    signature = sign("p", key)
    signature.with_suffix("").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"root\.sha256\.sig does not sign"):
        check_signature("p", None)
    signature.with_suffix("").unlink()
    with pytest.raises(UserError, match=r"root\.sha256\.sig does not sign"):
        check_signature("p", None)
    signature.unlink()
    with pytest.raises(UserError, match=r"--signers .*root\.sha256\.sig.* does not exist"):
        check_signature("p", tmp_path / "signers")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_a_signature_of_somebody_else_is_refused(key: Path, tmp_path: Path) -> None:
    sign("p", key)
    (tmp_path / "signers").write_text("")
    with pytest.raises(UserError, match="ssh-keygen find-principals failed"):
        check_signature("p", tmp_path / "signers")


def test_without_ssh_keygen_signing_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="ssh-keygen"):
        sign("p", Path("key"))
