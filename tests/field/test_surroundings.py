"""What surrounds a run must not change it: paths, environment variables, HOME, git, half-made environments."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from checkouts import commit, git
from memory_files import write_memory_file
from workflow_project import ROOT, Project, copy_project

from malmen.audit.audit import Outcome
from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.report import report
from malmen.audit.trail import Trail
from malmen.errors import UserError
from malmen.models.hub import refusal
from malmen.provenance.environment import checkout, git_status
from malmen.provenance.records import record_files
from malmen.runtime.dvc import Remote
from malmen.sharing.crate import configured_agent

NOWHERE = "/proc/nohome"
"""A folder that nobody can make."""


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with some environment variables set or, if empty, unset."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables}
    environment = {name: value for name, value in environment.items() if value}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


# A notebook's or a user's settings of matplotlib


DRAW = (
    "from pathlib import Path; from malmen.figures.memory_figure import draw_memory; "
    "draw_memory(Path('m.json'), Path('figure'), 'Title', {'separated': 'A', 'concatenated': 'B'})"
)


def drawn(folder: Path, **variables: str) -> list[str]:
    """Draw a figure in a folder and return the digests of its files."""
    write_memory_file(folder / "m.json", {4: 300, 8: 310}, {4: 320, 8: 400})
    done = run([sys.executable, "-c", DRAW], folder, **variables)
    assert done.returncode == 0, done.stderr
    return [hashlib.sha256((folder / f"figure.{kind}").read_bytes()).hexdigest() for kind in ("pdf", "png", "csv")]


def test_figures_are_the_same_whatever_backend_and_settings_the_user_has(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("plain", "notebook", "desktop", "settings")]
    for folder in folders:
        folder.mkdir()
    (folders[3] / "matplotlibrc").write_text("backend: nonsense\nfont.size: 40\nsavefig.dpi: 7\nsavefig.bbox: tight\n")
    expected = drawn(folders[0], MPLBACKEND="")
    assert drawn(folders[1], MPLBACKEND="module://no_such_package.backend_inline") == expected
    assert drawn(folders[2], MPLBACKEND="gtk4agg") == expected
    assert drawn(folders[3]) == expected


def test_a_script_whose_imports_fail_leaves_a_log(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text('rule all:\n    output: "x"\n    log: "logs/x.log"\n    script: "x.py"\n')
    (tmp_path / "x.py").write_text("from malmen.jobs.job import job\nimport malmen.no_such_module\n")
    done = run([sys.executable, "-m", "snakemake", "--cores", "1"], tmp_path)
    assert done.returncode != 0
    assert "No module named 'malmen.no_such_module'" in (tmp_path / "logs" / "x.log").read_text()


# Paths


def own_environment(checkout: Path) -> Path:
    """Make a `.venv` in a checkout that has the packages of this one, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    packages = next((checkout / ".venv").glob("lib/python*/site-packages"))
    (packages / "all.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return checkout / ".venv" / "bin" / "python"


def test_jobs_run_in_a_checkout_with_spaces_quotes_and_dollar_signs_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / 'my "project\'s" $HOME & (more); [a]*'
    copy_project(folder)
    command = "import sys; from malmen.workflow.command import main; sys.argv[0] = 'snakemake'; main()"
    python = own_environment(folder)
    done = run([str(python), "-c", command, "--cores", "1", "--", "data"], folder, PYTHONPATH=str(folder / "src"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((folder / "data" / "test" / "world" / "zsre").iterdir())


def test_a_path_with_braces_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "my{project}")
    done = project.run("snakemake --cores 1")
    assert done.status == 1 and "{project}" in done.output and "Traceback" not in done.output
    assert not (project.folder / "results").exists()


@pytest.mark.parametrize("arguments", ["--directory {elsewhere}", "--snakefile {checkout}/Snakefile"])
def test_another_working_directory_is_refused_in_one_sentence(
    untouched: Project, tmp_path: Path, arguments: str
) -> None:
    checkout = untouched.folder
    command = ["snakemake", "--cores", "1", *arguments.format(elsewhere=tmp_path, checkout=checkout).split()]
    done = run(command, tmp_path if "--snakefile" in command else checkout)
    said = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert str(checkout) in said[0] and str(tmp_path) in said[0]
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake"}  # Snakemake's own, and empty


def test_a_link_to_the_checkout_is_the_checkout(untouched: Project, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(untouched.folder)
    assert Project(tmp_path / "link").run("snakemake -n -- data").status == 0


# A HOME that cannot be written to


@pytest.mark.parametrize("command", ["snakemake -n -- data", "malmen plan"])
def test_caches_lie_in_the_checkout_where_home_cannot_be_written_to(untouched: Project, command: str) -> None:
    shutil.rmtree(untouched.folder / ".snakemake", ignore_errors=True)
    done = untouched.run(f"HOME={NOWHERE} XDG_CACHE_HOME= XDG_CONFIG_HOME= {command}")
    assert done.status == 0, done.output
    assert done.output.count("cannot be written to") == 1
    assert (untouched.folder / ".snakemake" / "cache" / "snakemake").is_dir()


def test_a_cache_that_can_be_written_to_is_used(untouched: Project, tmp_path: Path) -> None:
    done = untouched.run(f"HOME={NOWHERE} XDG_CACHE_HOME={tmp_path} snakemake -n -- data")
    assert done.status == 0 and "cannot be written to" not in done.output
    assert (tmp_path / "snakemake").is_dir()


# A half-made environment


def make_plan(folder: Path, target: str = ".venv/.place") -> str:
    """Return what `make` would do in a folder with the project's Makefile."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    done = run(["make", "--dry-run", f"PYTHON={sys.executable}", target], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment_in(folder: Path, place: str | None) -> Path:
    """Make an environment with a `pip`, and the mark that `make` leaves in it; return its folder."""
    folder.mkdir(exist_ok=True)
    packages = own_environment(folder).parents[1]
    if place is not None:
        (packages / ".place").write_text(place)
    return packages


def test_a_sound_environment_is_kept(tmp_path: Path) -> None:
    environment_in(tmp_path, f"{tmp_path.resolve()}\n")
    assert "-m venv" not in make_plan(tmp_path)
    (tmp_path / ".venv" / ".place").unlink()  # made by the user
    assert "-m venv" not in make_plan(tmp_path)


@pytest.mark.parametrize("fault", ["no pip", "unfinished", "moved", "no python", "nothing"])
def test_an_environment_that_is_not_sound_is_made_again(tmp_path: Path, fault: str) -> None:
    there = {"unfinished": "", "moved": "/somewhere/else\n"}.get(fault, f"{tmp_path.resolve()}\n")
    folder = environment_in(tmp_path, None if fault == "no pip" else there)
    if fault == "no pip":
        next(folder.glob("lib/python*/site-packages/all.pth")).unlink()
    elif fault == "no python":
        (folder / "bin" / "python").unlink()
    elif fault == "nothing":
        shutil.rmtree(folder)
    plan = make_plan(tmp_path, "setup")
    assert plan.index("rm -rf .venv") < plan.index("-m venv .venv") < plan.index("-m pip")


def test_make_refuses_a_path_in_which_no_environment_works(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    make_plan(folder)
    done = run(["make", f"PYTHON={sys.executable}", "setup"], folder)
    assert done.returncode != 0 and "a:b" in done.stderr
    assert not (folder / ".venv").exists()


# Line endings


def test_a_clone_has_the_committed_bytes_whatever_git_is_set_to(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    shutil.copy(ROOT / ".gitattributes", origin)
    written = {"text.md": b"one\ntwo\n", "windows.csv": b"a,b\r\n1,2\r\n", "mixed.json": b"{\r\n}\n"}
    for name, content in written.items():
        (origin / name).write_bytes(content)
    git(origin, "init", "--quiet")
    git(origin, "config", "core.autocrlf", "input")
    commit(origin, ".")
    for setting in ("true", "input", "false"):
        git(origin, "clone", "--quiet", "--config", f"core.autocrlf={setting}", str(origin), str(tmp_path / setting))
        assert {name: (tmp_path / setting / name).read_bytes() for name in written} == written


# Git that does not tell the commit


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "safe.directory"),
        ({"PATH": "/nowhere"}, "not installed"),
        ({"GIT_DIR": "/nowhere"}, "no clone"),
    ],
)
def test_what_git_does_not_tell_is_unknown_and_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    monkeypatch.chdir(tmp_path)
    assert checkout() == (None, ["src/"])  # no commit yet
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert checkout() == (None, None)
    with pytest.raises(UserError, match=named):
        git_status()


def test_a_run_warns_once_and_its_audit_says_that_the_commit_is_unknown(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    git(tmp_path, "init", "--quiet")
    done = project.run("GIT_TEST_ASSUME_DIFFERENT_OWNER=1 snakemake --cores 1 -- data")
    assert done.status == 0, done.output
    assert done.output.count("safe.directory") == 1
    trail = Trail("test", tmp_path)
    trail.check()
    check_code(trail, trail.records.values(), Commits(tmp_path, tmp_path / "scratch"))
    said = report(Outcome(trail, trail.links, trail.broken, [], "it"))
    assert trail.records["generate_world"].circumstances.uncommitted is None
    assert "Everything holds" not in said and "commit of the code is unknown for 1 job: generate_world" in said


def test_the_author_of_a_crate_must_be_named_where_there_is_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="--agent"):
        configured_agent(None, None)
    assert configured_agent("Ada", None).name == "Ada"


# Remotes, caches and downloads


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("{}", True),
        ("file://{}", True),
        ("{}/gone", False),
        ("file://{}/gone", False),
        ("http://me:secret@127.0.0.1:9/store", False),
        ("ssh://127.0.0.1:9/store", False),
        ("s3://bucket/store", True),  # as far as anybody can tell
    ],
)
def test_a_remote_that_is_not_there_is_named_with_what_to_do(tmp_path: Path, url: str, there: bool) -> None:
    remote = Remote("store", url.format(tmp_path))
    said = remote.absence()
    assert (said is None) == there
    if said:
        assert "secret" not in said and url.format(tmp_path).replace("me:secret@", "") in said
        assert "`dvc remote modify --local store url NEW`" in said


def test_an_audit_reads_the_records_of_those_downloads_that_its_run_read(tmp_path: Path) -> None:
    read = [{"path": f"data/raw/{name}", "maker": {"name": f"download_source/{name}"}} for name in ("mine", "gone")]
    for name, content in {
        "p/records/build_realtext/zsre.json": {"inputs": [*read, {"path": "data/published/t.csv", "maker": None}]},
        "q/records/build_realtext/zsre.json": {"inputs": [{**read[0], "path": "data/raw/other"}]},
        "p/records/broken.json": [],
        "raw/records/download_source/mine.json": {},
        "raw/records/download_source/other.json": {},
        "raw/records/environments/1.json": {},
    }.items():
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text(json.dumps(content))
    names = [path.relative_to(tmp_path / "results").as_posix() for path in record_files("p", tmp_path)]
    own = ["p/records/broken.json", "p/records/build_realtext/zsre.json"]
    assert names == [*own, "raw/records/download_source/mine.json"]


def test_a_hub_cache_that_cannot_be_written_to_is_named_and_not_the_network() -> None:
    said = str(refusal(PermissionError(errno.EACCES, "no", "/cache/models--a"), "a/b", "0" * 40))
    assert "/cache/models--a" in said and "HF_HOME" in said and "network" not in said
    assert "network" in str(refusal(ConnectionError("no route"), "a/b", "0" * 40))


# Targets


def test_editors_that_no_figure_shows_are_planned_and_a_target_without_files_says_so(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    config = project.config()
    config = {**config, "figures": {}, "tables": {}, "models": {"gpt2": config["models"]["gpt2"]}}
    (tmp_path / "config" / "demo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    plan = project.plan("snakemake -n -- editors caches figures")
    assert plan.jobs["train_editor"] == 5 and plan.jobs["collect_covariance"] == 1
    said = [message for message in plan.messages if "describes no" in message]
    assert len(said) == 2 and not any("All caches" in message for message in plan.messages)
    assert project.plan().jobs["train_editor"] == 5  # plain snakemake
    estimate = project.run("malmen plan")
    assert estimate.status == 0 and "train_editor" in estimate.output, estimate.output


def test_one_figure_or_table_is_a_target_by_its_name(untouched: Project) -> None:
    jobs = untouched.plan("snakemake -n -- figure4 table4").jobs
    assert jobs["draw_scaling"] == jobs["write_failures"] == jobs["figure4"] == jobs["table4"] == 1
    assert "figure5" not in jobs
    assert untouched.plan("snakemake -n -- report").jobs["report"] == 1
