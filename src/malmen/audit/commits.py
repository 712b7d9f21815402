"""The code of records: it must be that of the commits that they name, and may have changed since.

Results outlive code. So an audit reads the code as git holds it at a job's commit, computes its digests again and
compares them with the record's. How that code differs from the present code is no fault, but worth knowing. Where a
job's settings or files differ from the present ones, it asks that code what it makes of the configuration.
"""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from malmen.audit.planned import PlannedJob
from malmen.audit.trail import Broken, Code, Link, Trail
from malmen.errors import UserError
from malmen.provenance.environment import git_status
from malmen.provenance.records import Record
from malmen.runtime.code_digest import PACKAGE, code_digest, module_digest, script_digest, source

DIGESTS = "malmen.runtime.code_digest"
"""The module that says how digests are computed."""
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


def check_code(
    trail: Trail, records: Collection[Record], commits: Commits, planned: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Check that the code of jobs is that of their commits, and note what has changed since.

    Args:
        trail: where broken links and changes are noted.
        records: the records of the jobs.
        commits: the code at their commits.
        planned: the digests of the code with which jobs would run now, by name; those of others are computed.
    """
    for record in records:
        now = (planned or {}).get(record.name) or code_at(trail.root, record)
        commit = record.circumstances.commit
        changed, dirty = (
            [file_of(name, trail.root) for name in names]
            for names in (differing(record.code, now), uncommitted(record))
        )
        folder = commits.code(commit) if changed and not dirty else None
        trail.code[record.name] = Code(commit, changed, dirty, folder)
        faults = list(faults_of(record, now, commits))
        trail.links += [] if faults else [Link("code", record.name, record.name)]
        trail.broken += faults


def is_code(path: str) -> bool:
    """Return whether jobs run a file of the repository."""
    parts = Path(path).parts
    return (parts[0] in CODE or parts[:2] == ("data", "published")) and ".." not in parts


def trail_of_code(run: str, root: Path) -> Trail:
    """Return the records of a run, of which the code alone is checked."""
    trail = Trail(run, root)
    with tempfile.TemporaryDirectory() as scratch:
        check_code(trail, trail.records.values(), Commits(root, Path(scratch).resolve()))
    return trail


def faults_of(record: Record, now: Mapping[str, str], commits: Commits) -> list[Broken]:
    """Return in what the code of a job is neither that of its commit nor otherwise known."""
    commit = record.circumstances.commit
    code = commits.code(commit)
    if code:
        return list(misfits(record, now, code, commits.root))
    unknown = differing(record.code, now)
    if not unknown:
        return []  # The checkout holds it, whatever git does.
    if commit:
        said = f"git does not hold its commit {commit[:12]}, and its code has changed since: {commits.advice()}"
        return [Broken("missing", record.name, said, record.name)]
    files = [file_of(name, commits.root) for name in unknown]
    said = "has changed since, and git did not tell the commit that holds its code"
    return [Broken("stale", record.name, f"{file} {said}", record.name) for file in files]


def misfits(record: Record, now: Mapping[str, str], code: Path, root: Path) -> Iterator[Broken]:
    """Yield in what the code of a job is not that of its commit, which ``code`` holds.

    Where it had uncommitted changes, it must be what the checkout ``root`` holds now.
    """
    commit, dirty = record.circumstances.commit or "", uncommitted(record)
    differ = differing(record.code, code_at(code, record))
    for name in differ:
        if name in dirty and record.code[name] != now.get(name):
            said = (
                f"its {file_of(name, code)} had changes that neither its commit {commit[:12]} nor this checkout holds"
            )
            yield Broken("missing", record.name, said, record.name)
        if name in dirty or (dirty and name not in record.code):  # Uncommitted changes can end an import.
            continue
        if other_digests(code, root):
            where = f"`git worktree add ../{commit[:12]} {commit}`"
            said = f"digests of code are computed in another way since its commit; audit it there: {where}"
            yield Broken("stale", record.name, said, record.name)
            return
        said = f"its {file_of(name, code)} is not that of its commit {commit[:12]}"
        yield Broken("changed", record.name, said, record.name)


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the code whose digests differ, or that only one of the two has."""
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def code_at(root: Path, record: Record) -> dict[str, str]:
    """Return the digests of a job's modules, of all that they import and of its script, as a checkout holds them.

    What the checkout does not have has no digest.
    """
    package, script = root / "src" / PACKAGE, root / record.script
    modules = [name for name in record.code if not is_script(name) and source(name, package)]
    scripts = {f"scripts/{script.name}": script_digest(script)} if script.is_file() else {}
    return {**code_digest(*modules, root=package), **scripts}


def uncommitted(record: Record) -> list[str]:
    """Return the names of a job's code that git did not hold when it ran."""
    places = record.circumstances.uncommitted or []
    return [name for name in record.code if any(holds(place, name) for place in places)]


def holds(place: str, name: str) -> bool:
    """Return whether a path that git names, a file or an unknown folder, is or holds a module or script."""
    base = f"workflow/{name}" if is_script(name) else f"src/{name.replace('.', '/')}"
    files = (base, f"{base}.py", f"{base}/__init__.py")
    return any(file == place or (place.endswith("/") and file.startswith(place)) for file in files)


def other_digests(code: Path, root: Path) -> bool:
    """Return whether two checkouts compute digests differently."""
    there, here = (
        module_digest(DIGESTS, package) if source(DIGESTS, package) else None
        for package in (code / "src" / PACKAGE, root / "src" / PACKAGE)
    )
    return there != here


def is_script(name: str) -> bool:
    """Return whether a name in a record is that of a script, and not of a module."""
    return name.startswith("scripts/")


def file_of(name: str, root: Path) -> str:
    """Return the file of a module or script that a record names, from the root of a checkout."""
    if is_script(name):
        return f"workflow/{name}"
    file = source(name, root / "src" / PACKAGE)
    return file.relative_to(root).as_posix() if file else f"src/{name.replace('.', '/')}.py"
