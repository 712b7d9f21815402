"""Fixtures: tiny models; one thread, as sums depend on how they are split; the run that tests of the workflow share."""

import hashlib
import resource
from io import BufferedReader

import pytest
import torch
from checkouts import commit, git
from tiny_models import ARCHITECTURES, tiny_model
from workflow_project import COMMAND, Finished, Project, copy_project

from malmen.models.language_model import LanguageModel


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file, and those that share the finished workflow, in one of the processes of pytest-xdist."""
    for item in items:
        shared = "finished" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("finished" if shared else item.path.name))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to be hashed, in order."""
    read: list[str] = []
    digest = hashlib.file_digest

    def noted(stream: BufferedReader, name: str) -> object:
        read.append(str(stream.name))
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return read


@pytest.fixture
def gpt2() -> LanguageModel:
    """A GPT-2 that answers questions, in float64."""
    return tiny_model("gpt2")


@pytest.fixture
def bert() -> LanguageModel:
    """A BERT that checks facts, in float64."""
    return tiny_model("bert")


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Each architecture, in float64."""
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which nothing was run."""
    return copy_project(tmp_path_factory.mktemp("untouched"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A copy in which the whole workflow was run: it takes minutes. Tests leave it as it is."""
    project = copy_project(tmp_path_factory.mktemp("finished"))
    git(project.folder, "init", "--quiet")
    commit(project.folder, ".")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = project.run(COMMAND)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.status == 0, run.output
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(project.folder, run, seconds)
