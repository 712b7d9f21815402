"""A copy of the project in which tests run its commands as a user types them."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMMAND = "snakemake --cores 1 --resources gpu=1 all"
RESULTS = Path("results", "test")


@dataclass(frozen=True)
class Run:
    """A run of Snakemake that has ended."""

    status: int
    output: str

    @property
    def jobs(self) -> Counter[str]:
        """The number of jobs by rule, from the table that Snakemake prints; empty if there is nothing to do."""
        table = self.output.rpartition("Job stats:")[2]
        return Counter({name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.M) if name != "total"})

    @property
    def messages(self) -> set[str]:
        """What the jobs say that they do."""
        return set(re.findall(r"^Job \d+: (.*)$", self.output, re.M))


@dataclass(frozen=True)
class Project:
    """A copy of the project."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands: this one's commands come first, and the package is the copy's own."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**os.environ, "PATH": path, "PYTHONPATH": str(self.folder / "src")}

    def run(self, command: str) -> Run:
        """Run a command in the folder."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def plan(self, command: str = "snakemake -n") -> Run:
        """Return what a command would do."""
        run = self.run(command)
        assert run.status == 0, run.output
        return run

    def state(self) -> dict[str, tuple[int, str]]:
        """Return modification time and content of every file of data and results."""
        files = [path for name in ("data", "results") for path in (self.folder / name).rglob("*") if path.is_file()]
        return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}

    @contextmanager
    def changed(self, file: str, old: str, new: str) -> Iterator[None]:
        """Replace what stands once in a file, for a while."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")

    def config(self) -> Any:
        """Return the default configuration."""
        return yaml.safe_load((self.folder / "config" / "demo.yaml").read_text(encoding="utf-8"))

    def path(self, *parts: str) -> Path:
        """Return the path of a result."""
        return self.folder / RESULTS / Path(*parts)


def copy_project(folder: Path) -> Project:
    """Copy what git holds, or would hold, without results; the test configuration becomes the default one."""
    results = [":!results", ":!data/*/*/*"]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".", *results]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(folder / "config" / "test.yaml", folder / "config" / "demo.yaml")
    return Project(folder)


@dataclass(frozen=True)
class Finished(Project):
    """A copy in which the whole workflow was run."""

    first: Run
    seconds: float
