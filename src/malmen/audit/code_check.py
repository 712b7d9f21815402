"""The check of the code of records: it must be that of the commits that they name, and may have changed since.

Results outlive code. So an audit computes the digests of the code at a job's commit again, and compares them with the
record's. How that code differs from the present code is no fault, but worth knowing.
"""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from malmen.audit.commits import Commits, is_script
from malmen.audit.trail import Broken, Code, Link, Trail
from malmen.provenance.records import Record
from malmen.runtime.code_digest import PACKAGE, module_digest, source

DIGESTS = "malmen.runtime.code_digest"
"""The module that says how digests are computed."""


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
        now = (planned or {}).get(record.name) or commits.digests(trail.root, record)
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
        return list(misfits(record, now, code, commits))
    unknown = differing(record.code, now)
    if not unknown:
        return []  # The checkout holds it, whatever git does.
    if commit:
        said = f"git does not hold its commit {commit[:12]}, and its code has changed since: {commits.advice()}"
        return [Broken("missing", record.name, said, record.name)]
    files = [file_of(name, commits.root) for name in unknown]
    said = "has changed since, and git did not tell the commit that holds its code"
    return [Broken("stale", record.name, f"{file} {said}", record.name) for file in files]


def misfits(record: Record, now: Mapping[str, str], code: Path, commits: Commits) -> Iterator[Broken]:
    """Yield in what the code of a job is not that of its commit, which the folder ``code`` holds.

    Where it had uncommitted changes, it must be what the checkout holds now.
    """
    commit, dirty = record.circumstances.commit or "", uncommitted(record)
    differ = differing(record.code, commits.digests(code, record))
    for name in differ:
        if name in dirty and record.code[name] != now.get(name):
            said = (
                f"its {file_of(name, code)} had changes that neither its commit {commit[:12]} nor this checkout holds"
            )
            yield Broken("missing", record.name, said, record.name)
        if name in dirty or (dirty and name not in record.code):  # Uncommitted changes can end an import.
            continue
        if other_digests(code, commits.root):
            where = f"`git worktree add ../{commit[:12]} {commit}`"
            said = f"digests of code are computed in another way since its commit; audit it there: {where}"
            yield Broken("stale", record.name, said, record.name)
            return
        said = f"its {file_of(name, code)} is not that of its commit {commit[:12]}"
        yield Broken("changed", record.name, said, record.name)


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the code whose digests differ, or that only one of the two has."""
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


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


def file_of(name: str, root: Path) -> str:
    """Return the file of a module or script that a record names, from the root of a checkout."""
    if is_script(name):
        return f"workflow/{name}"
    file = source(name, root / "src" / PACKAGE)
    return file.relative_to(root).as_posix() if file else f"src/{name.replace('.', '/')}.py"
