"""The finished run is published, cloned and restored, by the commands as a user types them."""

import base64
import filecmp
import resource
import shutil
from pathlib import Path

import pytest
from checkouts import clone, commit, git, make_checkout
from workflow_project import RESULTS, Finished, Project, Run

SAID = "results/test holds published results, not made in this checkout"
DRAWING = "snakemake --cores 1 -- figures tables summary"


@pytest.fixture(scope="module")
def published(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with the finished run, of which DVC's part was pushed to a directory, and git's was committed."""
    project = Project(tmp_path_factory.mktemp("published") / "checkout")
    shutil.copytree(finished.folder, project.folder)
    make_checkout(project, project.folder.with_name("remote"))
    run = project.run("snakemake --cores 1 -- publish")
    assert run.status == 0, run.output
    assert run.jobs == {"publish": 1}
    assert "commit next: git add data results .dvc && git commit" in run.output
    commit(project.folder, "data", "results", ".dvc")
    return project


def relative_files(project: Project, *folders: str) -> set[str]:
    """Return all files in some folders of a project."""
    found = (path for folder in folders for path in (project.folder / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(project.folder)) for path in found}


def assert_same(first: Project, second: Project, names: set[str]) -> None:
    """Compare files byte by byte."""
    assert names
    _, different, missing = filecmp.cmpfiles(first.folder, second.folder, sorted(names), shallow=False)
    assert (different, missing) == ([], [])


def interrupt(project: Project, result: str) -> None:
    """Leave Snakemake's notes on a result as a killed run does: its job has begun, and not ended."""
    name = base64.b64encode(str(RESULTS / result).encode()).decode()
    (project.folder / ".snakemake" / "metadata" / name).unlink()
    (project.folder / ".snakemake" / "incomplete" / name).touch()


def timed(project: Project, command: str) -> tuple[Run, float]:
    """Run a command, which must succeed; return the computing time that it took, in seconds, too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = project.run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.status == 0, run.output
    return run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_every_file_is_gits_or_dvcs_and_none_is_both(published: Project) -> None:
    by_git = set(git(published.folder, "ls-files", "data", "results").split())
    outputs = [name.removesuffix(".dvc") for name in by_git if name.endswith(".dvc")]
    there = relative_files(published, "data", "results")
    by_dvc = {name for name in there if any(name == out or name.startswith(f"{out}/") for out in outputs)}
    assert not by_git & by_dvc
    rest = there - by_git - by_dvc
    assert rest and all(name.startswith(f"{RESULTS}/logs/") for name in rest)
    large = (".safetensors", ".jsonl", "text.txt", "tokenizer.json")
    assert {name for name in there if name.endswith(large)} <= by_dvc
    assert {name for name in there if Path(name).parts[2] in ("figures", "tables", "metrics", "records")} <= by_git
    assert not git(published.folder, "status", "--porcelain")


def test_a_fresh_clone_leaves_out_no_work_without_a_word(published: Project) -> None:
    fresh = Project(clone(published.folder, "untouched"))
    before = fresh.state()
    for command, status in (("snakemake", 0), ("snakemake -n", 0), ("snakemake table1", 0)):
        run = fresh.run(command)
        assert (run.status, run.output.count(SAID)) == (status, 1), run.output
    assert fresh.state() == before
    fresh.path("figures", "figure5.pdf").unlink()
    run = fresh.run("snakemake figure5")
    assert (run.status, run.output.count(SAID)) == (1, 1), run.output
    shutil.rmtree(fresh.folder / RESULTS)
    anew = fresh.plan()
    assert anew.jobs["pretrain_model"] and anew.jobs["generate_world"] and SAID not in anew.output


def test_a_number_in_a_fresh_clone_is_traced_to_its_data(published: Project) -> None:
    fresh = Project(clone(published.folder, "asked"))
    run = fresh.run("malmen audit table1 MALMEN GS")
    assert run.status == 0, run.output
    assert "on disk: not here" in run.output and "Everything that is here holds" in run.output
    (fresh.folder / RESULTS / "models" / "gpt2" / "finetuned.dvc").unlink()
    run = fresh.run("malmen audit table1 MALMEN GS")  # Nobody has those weights.
    assert run.status == 1 and f"missing:    {RESULTS}/models/gpt2/finetuned/model.safetensors" in run.output


def test_a_fresh_clone_redraws_everything_and_trains_nothing(published: Project) -> None:
    fresh = Project(clone(published.folder, "redrawn"))
    with fresh.changed(
        "src/malmen/figures/residual.py", "\nimport numpy as np\n", "\nimport math\nimport numpy as np\n"
    ):
        run, _ = timed(fresh, "malmen restore")
        assert "1 module changed since: src/malmen/figures/residual.py." in run.output
        assert run.output.rstrip().endswith("--forcerun draw_residual")
    run, restoring = timed(fresh, "malmen restore")
    assert "changed since" not in run.output
    assert "Nothing to be done" in fresh.plan().output
    interrupt(fresh, "summary.md")
    again = fresh.plan()
    assert again.jobs["write_summary"] and SAID not in again.output  # It is an interrupted job's, and no published one.
    drawn = {str(RESULTS / name) for name in ("figures", "tables", "summary.md", "summary.html", "summary.csv")}
    names = {name for name in relative_files(fresh, "results") if any(name.startswith(part) for part in drawn)}
    for name in names:
        (fresh.folder / name).unlink()
    run, drawing = timed(fresh, DRAWING)
    assert restoring + drawing < 60
    assert all(job.startswith(("draw_", "write_")) for job in run.jobs.keys() - {"figures", "tables", "summary"})
    assert not (fresh.folder / RESULTS / "models" / "gpt2" / "finetuned").exists()
    assert_same(fresh, published, names)
    audit = fresh.run("malmen audit --figures-only")
    assert audit.status == 0, audit.output
    with fresh.changed("config/demo.yaml", "label: First layer,", "label: First layer, training: {max_steps: 2},"):
        assert "Training First layer on GPT-2 (test): m = 16, seed 0" in fresh.plan().messages


def test_a_full_restoration_leaves_nothing_to_be_done(published: Project) -> None:
    fresh = Project(clone(published.folder, "full"))
    run = fresh.run("malmen restore --full")
    assert run.status == 0, run.output
    for command in ("snakemake -n", "snakemake -n -- figures tables summary data models editors"):
        assert "Nothing to be done" in fresh.plan(command).output
    audit = fresh.run("malmen audit")
    assert audit.status == 0, audit.output
    names = {name for name in relative_files(published, "data", "results") if not name.startswith(f"{RESULTS}/logs/")}
    assert_same(fresh, published, {name for name in names if not name.endswith(".snakemake_timestamp")})


def test_results_that_nobody_committed_are_missed(published: Project) -> None:
    fresh = Project(clone(published.folder, "other"))
    shutil.rmtree(fresh.folder / RESULTS)
    run = fresh.run("malmen restore")
    assert run.status == 1
    assert run.output.startswith("Error: The checkout has no results/test; ")
    assert len(run.output.splitlines()) == 1
