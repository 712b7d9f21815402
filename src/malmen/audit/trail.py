"""The trail of a run: it checks the records against each other and against the files."""

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from malmen.errors import UserError
from malmen.provenance.recording import SNAKEMAKES_OWN
from malmen.provenance.records import (
    RAW,
    Artefact,
    Input,
    Record,
    environment_path,
    read_environment,
    read_record,
    record_files,
    record_path,
    records_folder,
)
from malmen.runtime.dvc import pointer
from malmen.runtime.files import sha256
from malmen.runtime.progress import progress

Kind = Literal["changed", "missing", "stale", "unrecorded", "not here"]
"""The kind of a broken link. changed: the content differs from the record, or the code from its commit; missing: the
file or the code does not exist; stale: inputs or settings have changed since; unrecorded: no recorded job made it; not
here: recorded, but this machine need not have it."""

OF_RECORDS = "write_lineage"
"""The rule that writes the lineage page from the records; the audit can repeat it only if all records hold."""

OVERVIEWS = (OF_RECORDS, "write_index", "write_explorer")
"""The rules that write pages about all results."""

DELETABLE = ("cache_base_outputs",)
"""Rules whose outputs only save time; users may delete them after all later jobs have run."""

SLOW_TO_HASH = 2**31
"""Size in bytes above which hashing shows progress."""

logger = logging.getLogger("malmen")


@dataclass(frozen=True)
class Broken:
    """A broken link.

    Attributes:
        kind: what is wrong.
        what: the path of the file, or the name of the record.
        reason: the evidence.
        job: the name of the job that made or should have made it; empty if there is none.
    """

    kind: Kind
    what: str
    reason: str
    job: str = ""


@dataclass(frozen=True)
class Flow:
    """The paths of a job's inputs and outputs."""

    inputs: Sequence[str]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Link:
    """A link that holds.

    Attributes:
        kind: what was checked.
        what: the path of the file, or the name of the record.
        job: the name of the job that made or read it.
        count: how many links it stands for: a CSV stands for each of its numbers.
    """

    kind: str
    what: str
    job: str
    count: int = 1


@dataclass(frozen=True)
class Code:
    """The code of a job.

    Attributes:
        commit: the commit at which the job ran; None if git did not tell it.
        changed: the files of the code that have changed since.
        uncommitted: the files of the code that had uncommitted changes then.
        folder: where the code lies as it was then, if it has changed since.
    """

    commit: str | None
    changed: Sequence[str] = ()
    uncommitted: Sequence[str] = ()
    folder: Path | None = None


class Trail:
    """The records of a run, and whether they match each other and the files.

    Args:
        run: the name of the run.
        root: the project's root.
        absent_allowed: whether files that no figure or table needs may be absent ("not here").
    """

    def __init__(self, run: str, root: Path = Path(), absent_allowed: bool = False) -> None:
        self.run, self.root, self.absent_allowed = run, root, absent_allowed
        self.published_allowed = absent_allowed
        """Whether files that DVC keeps, by their pointers, may be absent ("not here")."""
        self.links: list[Link] = []
        self.broken: list[Broken] = []
        self.records: dict[str, Record] = {}
        self.unreadable: set[str] = set()
        self.found: dict[str, str] = {}
        """The SHA-256 on disk of the files that were hashed, by path."""
        self._read()
        self.flow = {
            record.name: Flow([file.path for file in record.inputs], [file.path for file in record.outputs])
            for record in self.records.values()
        }
        """Inputs and outputs of each job; an audit adds jobs without a record."""
        self.code: dict[str, Code] = {}
        """The code of each job whose code was checked (:mod:`malmen.audit.code_check`)."""
        self.replanned: dict[str, list[str]] = {}
        """How settings and files of jobs differ from the present ones because the code has changed since, by job."""
        self.new: list[str] = []
        """The names of jobs of which the code knew nothing when the others ran."""

    def _read(self) -> None:
        """Read all records, and keep the unchanged ones."""
        for path in record_files(self.run, self.root):
            place = path.relative_to(self.root).as_posix()
            name = path.relative_to(self.root / records_folder(path.relative_to(self.root).parts[1])).as_posix()
            try:
                record = read_record(path)
                if record_path(record).as_posix() != place:
                    raise UserError(f"{place} is the record of {record.name} in a wrong place; move it back.")
            except UserError as error:
                self.unreadable.add(name.removesuffix(".json"))
                self.broken.append(Broken("changed", place, str(error), name.removesuffix(".json")))
            else:
                self.records[record.name] = record
                self.links.append(Link("records", place, record.name))

    @cached_property
    def makers(self) -> dict[str, Record]:
        """The record of the job that made each file or directory, by path."""
        return {output.path: record for record in self.records.values() for output in record.outputs}

    @cached_property
    def drawn(self) -> set[str]:
        """Paths of the figures and tables and of their inputs."""
        drawings = [record for record in self.records.values() if is_drawing(record)]
        return {file.path for record in drawings for file in (*record.inputs, *record.outputs)}

    @cached_property
    def expected(self) -> dict[str, str]:
        """The recorded SHA-256 of files, by path: outputs of jobs, and inputs that no job made."""
        return expected_of(self.records.values())

    def hash_files(self, paths: Iterable[str]) -> None:
        """Hash those of these files that exist."""
        here = [path for path in paths if (self.root / path).is_file()]
        size = sum((self.root / path).stat().st_size for path in here)
        logger.info("Hashing %d files, %d MiB", len(here), math.ceil(size / 2**20))
        files = progress(here, len(here), "Hashing files") if size >= SLOW_TO_HASH else here
        self.found |= {path: sha256(self.root / path) for path in files}

    def check(self) -> None:
        """Check all records against each other and against the files."""
        self.check_records(self.records.values())
        self.check_others()

    def check_records(self, records: Collection[Record]) -> None:
        """Check some records against those of the jobs that made their inputs, and against the files."""
        self.hash_files(expected_of(records))
        for record in records:
            for file in record.outputs:
                self.check_files(file, record)
            for source in record.inputs:
                self.check_input(source, record)
            self.check_environment(record)

    def check_files(self, file: Artefact, record: Record) -> None:
        """Check that files are what a job made, and that nothing was added to its directories."""
        for path, digest in file.digests.items():
            self.check_file(path, digest, record, "made")
        if file.files is not None:
            folder = self.root / file.path
            there = (one for one in folder.rglob("*") if one.is_file() and one.name != SNAKEMAKES_OWN)
            added = {one.relative_to(folder).as_posix() for one in there} - set(file.files)
            for name in sorted(added):
                self.report("unrecorded", f"{file.path}/{name}", f"{record.name} did not make it", record)

    def check_file(self, path: str, digest: str, record: Record, how: Literal["made", "read"]) -> None:
        """Check that a file has the recorded content; after a swap, it holds the content of another."""
        found = self.found.get(path)
        if found == digest:
            self.links.append(Link("files" if how == "made" else "inputs", path, record.name))
        elif found is None:
            undrawn = self.absent_allowed and self.drawn.isdisjoint(parents(path))
            kept = self.published_allowed and any(pointer(self.root / place).is_file() for place in parents(path)[:-1])
            absent = how == "made" and (undrawn or kept or record.rule in DELETABLE)
            self.report("not here" if absent else "missing", path, f"{record.name} {how} it", record)
        else:
            others = [other for other, known in self.expected.items() if known == found and other != path]
            whose = f" (that of {others[0]})" if others else ""
            difference = f"its SHA-256 is {found[:12]}…{whose} and was {self.expected[path][:12]}…"
            self.report("changed", path, f"{difference} when {record.name} {how} it", record)

    def check_input(self, file: Input, record: Record) -> None:
        """Check that an input is the recorded output of another job or, if no job made it, unchanged."""
        if file.maker is None:
            folder, run, *_ = (*Path(file.path).parts, "")
            if folder in ("results", "data") and run in (self.run, RAW):
                reason = f"{record.name} read it, but no record says what made it"
                self.report("unrecorded", file.path, reason, record)
                return
            for path, digest in file.digests.items():
                self.check_file(path, digest, record, "read")
            return
        maker = self.records.get(file.maker.name)
        if maker is None:
            if file.maker.name not in self.unreadable:
                self.report("unrecorded", file.path, f"{file.maker.name} made it, but has no record", record)
            return
        made = {output.path: output.digests for output in maker.outputs}
        # All configurations share downloads. The same bytes, fetched once more, are as good: their checksum is pinned.
        same_run = maker.digest == file.maker.digest or maker.run == RAW
        if not same_run or made.get(file.path) != file.digests:
            self.report("stale", record.name, f"it read {file.path} from another run of {maker.name}", record)
        else:
            self.links.append(Link("inputs", file.path, record.name))

    def check_environment(self, record: Record) -> None:
        """Check the environment file of a record."""
        path = environment_path(record.run, record.circumstances.environment)
        if path.as_posix() in {broken.what for broken in self.broken}:
            return
        try:
            read_environment(self.root / path)
        except UserError as error:
            kind: Kind = "changed" if (self.root / path).exists() else "missing"
            self.report(kind, path.as_posix(), str(error), record)
        else:
            self.links.append(Link("environments", path.as_posix(), record.name))

    def check_others(self) -> None:
        """Report files beside results that no recorded job made."""
        folders = {Path(path).parent for path in self.makers if self.run in Path(path).parts[:2]}
        for folder in sorted(folders - {Path("results", self.run)}):
            for file in sorted((self.root / folder).iterdir()) if (self.root / folder).is_dir() else ():
                path = (folder / file.name).as_posix()
                known = path in self.makers or file.name.startswith(".") or file.suffix == ".dvc" or file.is_dir()
                if not known and not self.unreadable:
                    self.broken.append(Broken("unrecorded", path, "no recorded job made it"))

    def report(self, kind: Kind, what: str, reason: str, record: Record) -> None:
        """Add a broken link, unless it is already known."""
        if (broken := Broken(kind, what, reason, record.name)) not in self.broken:
            self.broken.append(broken)

    def checkout(self, job: str) -> Path | None:
        """Return the checkout of the code that a job ran: the project's or, if it has changed since, of its commit.

        None if it has changed since, and no commit holds it.
        """
        code = self.code.get(job)
        return code.folder if code and code.changed else self.root

    def followed(self, jobs: Iterable[str]) -> list[str]:
        """Return jobs and all jobs after them, which read what they make."""
        found = dict.fromkeys(jobs)
        waiting = list(found)
        for name in waiting:  # grows during the loop
            made = set(self.flow[name].outputs) if name in self.flow else set()
            after = [other for other, flow in self.flow.items() if other not in found and made & set(flow.inputs)]
            found |= dict.fromkeys(after)
            waiting += after
        return list(found)

    def lineages(self, job: str, path: str = "") -> list[list[str]]:
        """Return the paths of results that lead from a figure or table to the results of a job, or to one of them.

        The shortest lineage comes first. A result that no job reads is its own lineage.
        """
        made = [path] if path else self.flow[job].outputs if job in self.flow else []
        waiting = [(list(made[:1]), made)]
        found, seen = [], {job}
        for lineage, paths in waiting:  # grows during the loop
            reads = (name for name, flow in self.flow.items() if not set(paths).isdisjoint(flow.inputs))
            readers = [name for name in reads if name not in OVERVIEWS]
            if not readers:
                found.append(lineage)
            for name in [reader for reader in readers if reader not in seen]:
                seen.add(name)
                results = self.flow[name].outputs
                waiting.append(([results[0], *lineage], results))
        return sorted(found, key=lambda lineage: (len(lineage), lineage))


def expected_of(records: Collection[Record]) -> dict[str, str]:
    """Return the recorded SHA-256 of the files that jobs made, and of their inputs that no job made, by path."""
    given = (file for record in records for file in record.inputs if file.maker is None)
    made = (file for record in records for file in record.outputs)
    return {path: digest for file in (*given, *made) for path, digest in file.digests.items()}


def parents(path: str) -> list[str]:
    """Return a path and all its parent folders."""
    return [path, *(folder.as_posix() for folder in Path(path).parents)]


def no_results(run: str) -> UserError:
    """Return the error that a run has left nothing yet."""
    return UserError(f"There are no results of {run} yet; run the workflow first.")


def is_drawing(record: Record) -> bool:
    """Return whether a job draws figures or writes tables: it runs no model and its outputs are results."""
    return record.model is None and record.determinism is None and record.outputs[0].path.startswith("results/")
