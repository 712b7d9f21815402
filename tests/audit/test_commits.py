"""The audit checks code against the commits that records name, and says apart from that what has changed since."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkouts import git
from recorded import Job

from malmen.audit.audit import Outcome, check_plan
from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.part import explain
from malmen.audit.planned import PlannedJob
from malmen.audit.report import report
from malmen.audit.report_file import AuditReport
from malmen.audit.trail import Trail
from malmen.provenance.recording import Start, record_job, states
from malmen.provenance.records import read_record, to_json
from malmen.runtime import code_digest as digests
from malmen.runtime.code_digest import code_digest

# The package has no __init__.py: so it hides the real one from no process that draws the table again.
SHARED, MEASURING, DRAWING = (f"src/malmen/made_up/{name}.py" for name in ("shared", "measuring", "drawing"))
SCRIPT = "workflow/scripts/script.py"
METRICS, TABLE = "results/p/metrics/m2.json", "results/p/tables/table1.csv"
WRITING = f"open('{TABLE}', 'w').write('%s' + open('{METRICS}').read())\n"
RECORDS = ("results/p/records/evaluate/tiny.json", "results/p/records/write.json")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project under git, in which a job measured and another one wrote a table."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git(folder, "init", "--quiet")
    write(SHARED, "NUMBER = 1\n")
    write(MEASURING, "import malmen.made_up.shared\n")
    write(DRAWING, "import malmen.made_up.shared\n")
    write(SCRIPT, WRITING % "=,")
    commit()
    run()
    yield folder
    forget()


def forget() -> None:
    """Read the code anew, as another process does."""
    for function in (digests.tree, digests.module_digest, digests.imported):
        function.cache_clear()


def write(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    forget()


def commit(folder: Path = Path()) -> str:
    """Commit the code and the results, and return the commit."""
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Code")
    return git(folder, "rev-parse", "HEAD").strip()


def run() -> None:
    """Run both jobs."""
    job("evaluate", "measuring", {}, METRICS, "0.5", model="tiny")
    job("write", "drawing", {"metrics": METRICS}, TABLE, "=,0.5")


def job(rule: str, module: str, inputs: dict[str, str | list[str]], output: str, content: str, **names: str) -> None:
    """Let a job make a file with a module of the package, and record it."""
    start = Start(states(path for path in [METRICS] if inputs))
    write(output, content)
    code = code_digest(f"malmen.made_up.{module}", root=Path("src/malmen"))
    machine = {"machine": {"device": "cpu", "threads": 1}} if names else {}
    record_job(Job(rule, inputs, {"made": output}, {"code": code, **machine}, names), Path(SCRIPT).resolve(), start)


def audited(folder: Path = Path()) -> Outcome:
    """Return what an audit finds of the code."""
    trail = Trail("p", folder)
    check_code(trail, trail.records.values(), Commits(folder, Path("..", "scratch").resolve()))
    return Outcome(trail, trail.links, trail.broken, [], "all")


def forged(path: str, **changes: Any) -> None:
    """Change a record, and seal it anew."""
    record = read_record(Path(path))
    Path(path).write_text(to_json(record.model_copy(update=changes).sealed()))


def test_code_that_is_that_of_its_commit_holds() -> None:
    outcome = audited()
    assert outcome.holds and outcome.counts["code"] == 2
    said = report(outcome)
    assert re.search(r"^Made at [0-9a-f]{12} \(2 jobs\), no module changed since\.$", said, re.M)
    assert "A re-run" not in said


@pytest.mark.parametrize(
    ("path", "jobs"),
    [(SHARED, ["evaluate/tiny", "write"]), (MEASURING, ["evaluate/tiny", "write"]), (DRAWING, ["write"])],
)
@pytest.mark.parametrize("committed", [True, False])
def test_code_that_has_changed_since_breaks_nothing_and_is_named(path: str, jobs: list[str], committed: bool) -> None:
    write(path, "import malmen.made_up.shared\n\nNUMBER = 2\n")
    if committed:
        commit()
    outcome = audited()
    assert outcome.holds and outcome.counts["code"] == 2
    said = report(outcome)
    assert f"(2 jobs), 1 module changed since: {path}." in said
    assert f"A re-run would do {len(jobs)} of 2 jobs, and make again: Table 1." in said
    for_programs = AuditReport.of(outcome)
    assert (for_programs.rerun, for_programs.results_of_rerun) == (jobs, [TABLE])
    assert list(for_programs.made_at.values()) == [2]
    assert {one.job for one in for_programs.code if one.changed_since == [path]} <= set(jobs)


def test_a_module_that_is_gone_or_new_has_changed() -> None:
    Path(SHARED).unlink()
    write("src/malmen/made_up/new.py", "")
    write(DRAWING, "import malmen.made_up.new\n")
    outcome = audited()
    assert outcome.holds
    assert set(outcome.trail.code["write"].changed) == {SHARED, DRAWING, "src/malmen/made_up/new.py"}
    assert set(outcome.trail.code["evaluate/tiny"].changed) == {SHARED}


def test_a_table_is_written_again_by_the_code_of_its_commit() -> None:
    write(SCRIPT, WRITING % "is,")
    text, outcome = explain([TABLE], Trail("p"))
    assert outcome.holds and outcome.counts["numbers"] == 1
    assert f"; changed since: {SCRIPT}" in text
    table = Path(TABLE).read_text()
    write(TABLE, table.replace("5", "9"))
    _, outcome = explain([TABLE], Trail("p"))
    assert [(one.kind, one.what) for one in outcome.broken] == [("changed", TABLE)]
    assert "drawn again, it is '=,0.5'" in outcome.broken[0].reason


def test_a_digest_that_does_not_match_the_commit_is_a_broken_link() -> None:
    code = read_record(Path(RECORDS[1])).code
    forged(RECORDS[1], code={**code, "malmen.made_up.shared": "0" * 16})
    outcome = audited()
    assert [(one.kind, one.what) for one in outcome.broken] == [("changed", "write")]
    assert SHARED in outcome.broken[0].reason
    forged(RECORDS[1], code={name: digest for name, digest in code.items() if not name.endswith("shared")})
    assert SHARED in audited().broken[0].reason  # It was left out.


def test_another_commit_does_not_fit_either() -> None:
    write(SHARED, "NUMBER = 2\n")
    second = commit()
    record = read_record(Path(RECORDS[0]))
    forged(RECORDS[0], circumstances=record.circumstances.model_copy(update={"commit": second}))
    assert [(one.kind, one.what) for one in audited().broken] == [("changed", "evaluate/tiny")]


def test_uncommitted_code_is_said_to_be_so_and_holds_as_long_as_the_checkout_holds_it() -> None:
    write("src/malmen/made_up/new/deep.py", "")  # Git names the new folder alone.
    write(DRAWING, "import malmen.made_up.new.deep\n")  # It imports `shared` no more.
    run()
    outcome = audited()
    assert outcome.holds
    said = f"1 job ran with uncommitted changes of code: {DRAWING}, src/malmen/made_up/new/deep.py."
    assert said in report(outcome)
    commit()
    assert audited().holds
    write(DRAWING, "LATER = True\n")
    outcome = audited()
    assert {(one.kind, one.what) for one in outcome.broken} == {("missing", "write")}
    assert DRAWING in outcome.broken[0].reason
    _, outcome = explain([TABLE], Trail("p"))
    assert any(remark.startswith("1 drawing job was not repeated") for remark in outcome.remarks)


def test_changes_that_are_no_code_do_not_matter() -> None:
    write("config/demo.yaml", "seeds: [0]")
    write(DRAWING, '"""A page."""\nimport malmen.made_up.shared\n')
    run()
    git(Path(), "checkout", "--", DRAWING)
    forget()
    assert audited().holds


def test_a_commit_that_git_does_not_hold_is_to_be_fetched(tmp_path: Path) -> None:
    commit()
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", Path().resolve().as_uri(), str(clone))
    assert audited(clone).holds  # The checkout still has the code of the jobs.
    write(SHARED, "NUMBER = 2\n")
    commit()
    git(clone, "fetch", "--quiet", "--depth", "1")
    git(clone, "reset", "--quiet", "--hard", "FETCH_HEAD")
    forget()
    outcome = audited(clone)
    assert {(one.kind, one.what) for one in outcome.broken} == {("missing", "evaluate/tiny"), ("missing", "write")}
    assert "`git fetch --unshallow`" in outcome.broken[0].reason
    git(clone, "fetch", "--quiet", "--unshallow")
    forget()
    assert audited(clone).holds


@pytest.mark.parametrize("commit_", ["0" * 40, "--output=x"])
def test_a_commit_that_never_was_holds_nothing(commit_: str) -> None:
    record = read_record(Path(RECORDS[0]))
    forged(RECORDS[0], circumstances=record.circumstances.model_copy(update={"commit": commit_}))
    write(SHARED, "NUMBER = 2\n")
    (broken,) = audited().broken
    assert (broken.kind, broken.what) == ("missing", "evaluate/tiny") and commit_[:12] in broken.reason


def test_without_git_the_checkout_must_hold_the_code() -> None:
    shutil.rmtree(".git")
    assert audited().holds
    write(SHARED, "NUMBER = 2\n")
    assert "is no clone" in audited().broken[0].reason
    run()
    outcome = audited()
    assert outcome.holds and len(outcome.without_commit) == 2
    write(SHARED, "NUMBER = 3\n")
    assert {(one.kind, one.what) for one in audited().broken} == {("stale", "evaluate/tiny"), ("stale", "write")}


def test_digests_that_are_computed_in_another_way_since_are_told_from_changed_code() -> None:
    write("src/malmen/runtime/code_digest.py", "LENGTH = 15\n")
    commit()
    code = read_record(Path(RECORDS[0])).code
    run()
    forged(RECORDS[0], code={name: digest[:15] for name, digest in code.items()})
    assert [one.kind for one in audited().broken] == ["changed"] * 3
    write("src/malmen/runtime/code_digest.py", "LENGTH = 16\n")
    (broken,) = audited().broken
    assert (broken.kind, broken.what) == ("stale", "evaluate/tiny") and "`git worktree add " in broken.reason


def test_git_is_started_once_for_each_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        if number == 10:
            write(SHARED, "NUMBER = 2\n")
            commit()
        job("evaluate", "measuring", {}, f"results/p/metrics/m{number}0.json", "0.5", model=str(number))
    started = []
    original = subprocess.run

    def noted(command: list[str], **more: Any) -> Any:
        started.append(command[1])
        return original(command, **more)

    monkeypatch.setattr(subprocess, "run", noted)
    assert audited().counts["code"] == 22
    assert started == ["ls-tree", "cat-file"] * 2


def planned(name: str, **settings: Any) -> PlannedJob:
    """Return a job as a commit plans it."""
    record = Trail("p").records.get(name)
    inputs, outputs = (
        ([file.path for file in files] for files in (record.inputs, record.outputs)) if record else ([], [])
    )
    rule, _, model = name.partition("/")
    settings = {**(record.settings if record else {}), **settings}
    return PlannedJob(
        rule=rule,
        wildcards={"model": model} if model else {},
        settings=settings,
        code={},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def checked(now: list[PlannedJob], then: list[PlannedJob]) -> Outcome:
    """Return what an audit finds if the jobs are planned in one way now, and in another way by the records' commit."""
    trail = Trail("p")
    check_plan(trail, now, lambda _: {job.name: job for job in then})
    return Outcome(trail, trail.links, trail.broken, [], "all")


def test_settings_may_be_those_of_the_commits_code() -> None:
    now = [planned("write", colour="red"), planned("evaluate/tiny")]
    outcome = checked(now, [planned("write"), planned("evaluate/tiny")])
    assert outcome.holds and outcome.counts["settings"] == 2
    assert outcome.trail.replanned == {"write": ["the setting colour is 'red' and was not set"]}
    assert outcome.touched == ["write"] and outcome.results_touched == [TABLE]
    for other in ([], [planned("write", colour="blue")]):
        outcome = checked(now, other)
        assert [(one.kind, one.what) for one in outcome.broken] == [("stale", "write")]
    assert checked([planned("write")], []).touched == []


def test_a_job_may_be_newer_than_the_commit() -> None:
    now = [planned("write"), planned("explore")]
    outcome = checked(now, [planned("write")])
    assert outcome.holds and outcome.trail.new == ["explore"] == outcome.touched
    assert "1 job is new since: explore." in report(outcome)
    for other in ([], now):
        outcome = checked(now, other)
        assert [(one.kind, one.what) for one in outcome.broken] == [("missing", "explore")]


def test_code_that_cannot_plan_plans_nothing() -> None:
    head = git(Path(), "rev-parse", "HEAD").strip()
    assert Commits(Path(), Path("..", "scratch").resolve()).plan(head, Path("config.yaml")) == {}
