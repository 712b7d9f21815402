"""Git checkouts in tests."""

import subprocess
from pathlib import Path

from workflow_project import Project


def git(folder: Path, *arguments: str) -> str:
    """Run a git command in a folder and return what it printed."""
    command = ["git", "-c", "user.name=Tester", "-c", "user.email=tester@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def commit(folder: Path, *paths: str) -> None:
    """Commit what is new in some paths."""
    git(folder, "add", *paths)
    git(folder, "commit", "--quiet", "--message", "Results")


def make_checkout(project: Project, remote: Path) -> None:
    """Put a project into git, without results, and let DVC push to a directory."""
    git(project.folder, "init", "--quiet")
    run = project.run(f"dvc remote add --default store {remote}")
    assert run.status == 0, run.output
    commit(project.folder, ".", ":!data/*/*/*", ":!results")


def clone(folder: Path, name: str = "clone") -> Path:
    """Clone a checkout to a folder beside it, and return that."""
    git(folder, "clone", "--quiet", str(folder), str(folder.with_name(name)))
    return folder.with_name(name)
