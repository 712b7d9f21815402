"""Results that are published in the repository hold, whatever code has changed since; skipped where there are none."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from workflow_project import ROOT

from malmen.audit.audit import check_plan
from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.planned import planned_jobs
from malmen.audit.trail import Trail
from malmen.sharing.publish import LARGE, kept_by_git


def published() -> list[str]:
    """Return the runs whose records git holds; none in a shallow clone, which lacks the commits of their code."""
    if git("rev-parse", "--is-shallow-repository") != ["false"]:
        return []
    return sorted({Path(name).parts[1] for name in git("ls-files", "--", "results/*/records/*")} - {"raw"})


def git(*arguments: str) -> list[str]:
    """Return the lines that a git command prints in this checkout; none if it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


@pytest.mark.parametrize("run", published())
def test_a_published_run_holds(run: str) -> None:
    configfile = ROOT / "config" / f"{run}.yaml"
    trail = Trail(run, ROOT, absent_allowed=True)
    trail.check()
    with tempfile.TemporaryDirectory() as scratch:
        commits = Commits(ROOT, Path(scratch).resolve())
        check_plan(trail, planned_jobs(configfile, ROOT), lambda commit: commits.plan(commit, configfile))
        check_code(trail, trail.records.values(), commits)
    assert [broken for broken in trail.broken if broken.kind != "not here"] == []


def test_all_published_runs_together_are_small() -> None:
    assert sum(sum(kept_by_git(ROOT, run).values()) for run in published()) <= LARGE
