"""``kill -9`` at random moments, then the same command: the very bytes of a run that nobody disturbed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from checkouts import clone, commit, make_checkout
from reliability import record
from slow_server import CONTENT, SHA256, slow_server
from workflow_project import Project, copy_project

KILLS = 5
"""So often each stage is killed; there are seven."""

DOWNLOADED = "nq_open_dev"


@dataclass(frozen=True)
class Stage:
    """A part of the workflow: its job's outputs, the first of which is asked for."""

    name: str
    outputs: tuple[str, ...]


RUN = "results/test"
STAGES = [  # From the last to the first: a later one would be made again with an earlier one.
    Stage("figure drawing", tuple(f"{RUN}/figures/figure8.{kind}" for kind in ("pdf", "png", "csv"))),
    Stage(
        "evaluation", tuple(f"{RUN}/metrics/validation/gpt2/malmen/m8-16_seed0{kind}.json" for kind in ("", ".cost"))
    ),
    Stage("editor training", tuple(f"{RUN}/editors/gpt2/malmen/m8-16_seed0{kind}" for kind in ("", ".cost.json"))),
    Stage("fine-tuning", (f"{RUN}/models/gpt2/finetuned",)),
    Stage("pretraining", (f"{RUN}/models/gpt2/pretrained",)),
    Stage("download", (f"data/raw/{DOWNLOADED}",)),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A slow mirror; yields its root."""
    with slow_server() as root:
        yield root


def lengthen(project: Project, server: str) -> None:
    """Let the jobs of the stages take some seconds, and save often; let the download come from the server.

    What no stage needs is left out.
    """
    config = {key: value for key, value in project.config().items() if not key.startswith("table")}
    for key, kept in (("models", ["gpt2"]), ("editors", ["malmen"]), ("figures", ["figure8"])):
        config[key] = {name: config[key][name] for name in kept}
    quick = {"epochs": 60, "learning_rate": 1.0e-3}
    config["models"]["gpt2"] |= {"n_edits": [8, 16], "pretraining": quick, "base_finetuning": quick}
    config["editors"]["malmen"]["training"] |= {"min_steps": 60, "max_steps": 60}
    config["figures"]["figure8"]["editors"] = ["malmen"]
    config["evaluation"]["max_groups"] = 4
    config["jobs"]["save_seconds"] = 0.2
    config["data"]["mirror"] = server
    (project.folder / "config" / "demo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    listed = project.folder / "src" / "malmen" / "config" / "upstream_files.yaml"
    sources = yaml.safe_load(listed.read_text(encoding="utf-8"))
    sources[DOWNLOADED] |= {"sha256": SHA256, "bytes": len(CONTENT)}
    listed.write_text(yaml.safe_dump(sources), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    """A copy in which all stages were run, undisturbed."""
    project = copy_project(tmp_path_factory.mktemp("killed"))
    lengthen(project, server)
    run = project.run(f"snakemake --cores 1 -- {' '.join(stage.outputs[0] for stage in STAGES)}")
    assert run.status == 0, run.output
    return project


def files_of(root: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return files, and those of directories, with their bytes; not the dates that Snakemake notes in directories."""
    paths = [path for name in names for path in (root / name, *(root / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.name != ".snakemake_timestamp"}


def contents(project: Project, stage: Stage) -> dict[str, bytes]:
    """Return the files of a stage's outputs, with their bytes; not those that hold times."""
    found = files_of(project.folder, stage.outputs)
    return {name: content for name, content in found.items() if not name.endswith("cost.json")}


def remove(project: Project, stage: Stage) -> None:
    for name in stage.outputs:
        path = project.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def kill(project: Project, target: str, seconds: float, whole_group: bool) -> None:
    """Start to make a target, and kill after some seconds all of it at once, or the workflow's main process alone."""
    command = ["snakemake", "--cores", "1", "--", target]
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    psutil.wait_procs(children, timeout=60)


def kill_often(project: Project, target: str, remove: Callable[[], None], made: Callable[[], dict[str, bytes]]) -> str:
    """Kill what makes something at random moments, run the same command again, and compare; say what happened.

    Args:
        project: Where.
        target: What is asked for.
        remove: Takes away what was made.
        made: Returns it.
    """
    rng, command = random.Random(target), f"snakemake --cores 1 -- {target}"
    remove()
    start = time.monotonic()
    run = project.run(command)
    assert run.status == 0, run.output
    seconds, expected, resumed = time.monotonic() - start, made(), 0
    for number in range(KILLS):
        remove()
        # The first third is Python's and Snakemake's start.
        kill(project, target, rng.uniform(0.3, 1) * seconds, whole_group=number % 2 == 0)
        run = project.run(command)
        assert run.status == 0, run.output
        assert made() == expected
        resumed += "resuming after" in run.output
        left = [path for path in project.folder.rglob(".*.part") if ".snakemake" not in path.parts]
        assert not left, "of a killed run something stays behind"
    goes_on = f"; {resumed} resumed from a saved state" if resumed else ""
    return f"{KILLS} identical results{goes_on}; no manual step"


def record_kills(stage: str, happened: str) -> None:
    injected = "the whole process group, or Snakemake's main process alone, at a random moment; then the same command"
    record(f"`kill -9` during {stage}", injected, KILLS, happened)


@pytest.mark.faults
def test_a_killed_publication_ends_as_an_undisturbed_one(project: Project) -> None:
    remote = project.folder.with_name("remote")
    make_checkout(project, remote)
    run = project.run("snakemake --cores 1")
    assert run.status == 0, run.output

    def pointers() -> list[str]:
        paths = (path for name in ("data", "results") for path in (project.folder / name).rglob("*.dvc"))
        return [str(path.relative_to(project.folder)) for path in paths]

    def remove() -> None:
        for name in pointers():
            (project.folder / name).unlink()
        for folder in (remote, project.folder / ".dvc" / "cache", project.folder / ".dvc" / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)

    happened = kill_often(
        project, "publish", remove, lambda: files_of(project.folder, pointers()) | files_of(remote, ["."])
    )
    commit(project.folder, "data", "results", ".dvc")
    fresh = Project(clone(project.folder, "fresh"))
    run = fresh.run("dvc pull")
    assert run.status == 0, run.output
    shared = [name.removesuffix(".dvc") for name in pointers()]
    assert shared and files_of(fresh.folder, shared) == files_of(project.folder, shared)
    record_kills("DVC publish", f"{happened}; a clone pulls the same bytes")


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_a_killed_workflow_ends_with_the_bytes_of_an_undisturbed_one(project: Project, stage: Stage) -> None:
    expected = contents(project, stage)
    happened = kill_often(project, stage.outputs[0], lambda: remove(project, stage), lambda: contents(project, stage))
    assert contents(project, stage) == expected
    record_kills(stage.name, happened)
