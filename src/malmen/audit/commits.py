"""The code at commits, as git holds it: laid out in a scratch folder, digested, asked what it makes of a configuration.

Git is started twice for each commit, whatever the number of jobs.
"""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from malmen.audit.planned import PlannedJob
from malmen.errors import UserError
from malmen.provenance.environment import git_status
from malmen.provenance.records import Record
from malmen.runtime.code_digest import PACKAGE, code_digest, script_digest, source

CODE = ("Snakefile", "workflow", "src", "config", "profiles", "environment.yml")
"""Parts of the repository that jobs run, beside the published numbers in ``data/published``."""


@dataclass(frozen=True)
class Commits:
    """The code at commits of a repository, each laid out once in a scratch folder.

    Attributes:
        root: the checkout.
        scratch: the scratch folder.
    """

    root: Path
    scratch: Path
    _known: dict[str, Path | None] = field(default_factory=dict)
    _plans: dict[str, dict[str, PlannedJob]] = field(default_factory=dict)
    _digests: dict[tuple[Path, str, tuple[str, ...]], dict[str, str]] = field(default_factory=dict)

    def code(self, commit: str | None) -> Path | None:
        """Return the folder with the code at a commit; None if git does not hold it."""
        if commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            return None
        if commit not in self._known:
            self._known[commit] = self._lay_out(commit)
        return self._known[commit]

    def _lay_out(self, commit: str) -> Path | None:
        """Write the code at a commit to a folder and return that; None if git does not hold it."""
        try:
            entries = [entry.partition(b"\t") for entry in self._git("ls-tree", "-r", "-z", commit).split(b"\0")]
            files = {path.decode(): about.split()[2] for about, _, path in entries if about.startswith(b"100")}
            code = {path: blob for path, blob in files.items() if is_code(path)}
            contents = io.BytesIO(self._git("cat-file", "--batch", said=b"\n".join(code.values())))
        except (OSError, subprocess.CalledProcessError):
            return None
        for path in code:
            size = int(contents.readline().split()[2])
            file = self.scratch / commit / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents.read(size))
            contents.readline()
        return self.scratch / commit

    def _git(self, *arguments: str, said: bytes = b"") -> bytes:
        """Run a git command in the checkout and return what it printed."""
        return subprocess.run(["git", *arguments], cwd=self.root, input=said, capture_output=True, check=True).stdout

    def digests(self, checkout: Path, record: Record) -> dict[str, str]:
        """Return the digests of a job's modules, of all that they import and of its script, as a checkout holds them.

        What the checkout does not have has no digest.
        """
        key = (checkout, record.script, tuple(record.code))
        if key not in self._digests:
            package, script = checkout / "src" / PACKAGE, checkout / record.script
            modules = [name for name in record.code if not is_script(name) and source(name, package)]
            scripts = {f"scripts/{script.name}": script_digest(script)} if script.is_file() else {}
            self._digests[key] = {**code_digest(*modules, root=package), **scripts}
        return self._digests[key]

    def plan(self, commit: str | None, configfile: Path) -> dict[str, PlannedJob]:
        """Return the jobs that the code at a commit makes of a configuration, by name; none if it cannot do so."""
        if (code := self.code(commit)) is None or commit is None:
            return {}
        if commit not in self._plans:
            command = [sys.executable, "-m", "malmen.audit.planned", str(configfile.resolve())]
            place = {**os.environ, "PYTHONPATH": str(code / "src")}
            done = subprocess.run(command, cwd=code, env=place, capture_output=True, text=True, check=False)
            *_, last = ["[]", *done.stdout.splitlines()] if done.returncode == 0 else ["[]"]
            jobs = json.loads(last)
            self._plans[commit] = {job.name: job for job in (PlannedJob(**one) for one in jobs)}
        return self._plans[commit]

    def advice(self) -> str:
        """Say how to get a commit that git does not hold."""
        try:
            git_status(self.root)
        except UserError as error:
            return str(error)
        command = ["git", "rev-parse", "--is-shallow-repository"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        return "run `git fetch --unshallow`" if done.stdout.strip() == "true" else "fetch the branch that it lies on"


def is_code(path: str) -> bool:
    """Return whether jobs run a file of the repository."""
    parts = Path(path).parts
    return (parts[0] in CODE or parts[:2] == ("data", "published")) and ".." not in parts


def is_script(name: str) -> bool:
    """Return whether a name in a record is that of a script, and not of a module."""
    return name.startswith("scripts/")
