"""The trail of a profile's results: its records, checked, and the files that they speak of, hashed anew."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from malmen.errors import UserError
from malmen.provenance.recording import SNAKEMAKES_OWN
from malmen.provenance.records import (
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
from malmen.runtime.files import sha256
from malmen.runtime.progress import progress

Kind = Literal["changed", "missing", "stale", "unrecorded", "not here"]
"""What is wrong: another content than recorded; gone; made from other inputs, settings or code than there are now;
there but made by no recorded job; absent from this machine, although recorded."""


OF_RECORDS = "write_chains"
"""The rule that writes a page of all chains from the records: it is the same again only if they all hold."""

DELETABLE = ("cache_base_outputs",)
"""Rules whose outputs only save time: they may be deleted when all is made that reads them."""

WORTH_WATCHING = 2**31
"""Bytes that take more than some seconds to hash."""

logger = logging.getLogger("malmen")


@dataclass(frozen=True)
class Broken:
    """A broken link.

    Attributes:
        kind: what is wrong.
        what: the file, or the job (its record's name) whose record does not hold.
        reason: how it shows.
        job: name of the record of the job that made or should have made it; empty if there is none.
    """

    kind: Kind
    what: str
    reason: str
    job: str = ""


@dataclass(frozen=True)
class Flow:
    """The paths that a job reads and makes."""

    inputs: Sequence[str]
    outputs: Sequence[str]

    @classmethod
    def of(cls, inputs: Sequence[Artefact], outputs: Sequence[Artefact]) -> "Flow":
        """Return those of a record."""
        return cls([file.path for file in inputs], [file.path for file in outputs])


class Trail:
    """The records of a profile, and how they fit together and to the files.

    Args:
        profile: the configuration's name.
        root: the project's root.
        absent_allowed: whether what figures and tables are not drawn from may be absent ("not here").
    """

    def __init__(self, profile: str, root: Path = Path(), absent_allowed: bool = False) -> None:
        self.profile, self.root, self.absent_allowed = profile, root, absent_allowed
        self.links: Counter[str] = Counter()
        self.broken: list[Broken] = []
        self.records: dict[str, Record] = {}
        self.unreadable: set[str] = set()
        self._read()
        self.flow = {record.name: Flow.of(record.inputs, record.outputs) for record in self.records.values()}
        """What each job reads and makes; an audit adds jobs of which there is no record."""

    def _read(self) -> None:
        """Read all records, and keep those that nobody has changed."""
        for path in record_files(self.profile, self.root):
            place = path.relative_to(self.root).as_posix()
            name = path.relative_to(self.root / records_folder(path.relative_to(self.root).parts[1])).as_posix()
            try:
                record = read_record(path)
                if record_path(record).as_posix() != place:
                    raise UserError(f"{place} is the record of {record.name} in a wrong place; put it back.")
            except UserError as error:
                self.unreadable.add(name.removesuffix(".json"))
                self.broken.append(Broken("changed", place, str(error), name.removesuffix(".json")))
            else:
                self.records[record.name] = record
                self.links["records"] += 1

    @cached_property
    def makers(self) -> dict[str, Record]:
        """The record of the job that made a file or directory, by its path."""
        return {output.path: record for record in self.records.values() for output in record.outputs}

    @cached_property
    def drawn(self) -> set[str]:
        """The figures and tables, and the files and directories that they are drawn from."""
        drawings = [record for record in self.records.values() if is_drawing(record)]
        return {file.path for record in drawings for file in (*record.inputs, *record.outputs)}

    @cached_property
    def expected(self) -> dict[str, str]:
        """The SHA-256 that files should have, by path: what jobs made, and what was there before them."""
        given = (file for record in self.records.values() for file in record.inputs if file.maker is None)
        made = (file for record in self.records.values() for file in record.outputs)
        return {path: digest for file in (*given, *made) for path, digest in file.digests.items()}

    @cached_property
    def found(self) -> dict[str, str]:
        """The SHA-256 that those files have which are there, by path."""
        here = [path for path in self.expected if (self.root / path).is_file()]
        size = sum((self.root / path).stat().st_size for path in here)
        logger.info("Hashing %d files, %d MiB", len(here), math.ceil(size / 2**20))
        return {path: sha256(self.root / path) for path in watched(here, size)}

    def check(self) -> None:
        """Check all records against each other and against the files."""
        for record in self.records.values():
            for file in record.outputs:
                self.check_files(file, record)
            for source in record.inputs:
                self.check_input(source, record)
            self.check_environment(record)
        self.check_others()

    def check_files(self, file: Artefact, record: Record) -> None:
        """Check that files are what a job made; of a directory that nothing was added."""
        for path, digest in file.digests.items():
            self.check_file(path, digest, record)
        if file.files is not None:
            added = set(below(self.root / file.path)) - set(file.files)
            for name in sorted(added):
                self.report("unrecorded", f"{file.path}/{name}", f"{record.name} did not make it", record)

    def check_file(self, path: str, digest: str, record: Record) -> None:
        """Check that a file has the content that a record gives it."""
        found = self.found.get(path)
        if found == digest:
            self.links["files"] += 1
        elif found is None:
            excused = self.absent_allowed and self.drawn.isdisjoint(parents(path))
            absent = excused or record.rule in DELETABLE
            self.report("not here" if absent else "missing", path, f"{record.name} made it", record)
        else:
            self.report("changed", path, f"{self.difference(path)} when {record.name} made it", record)

    def difference(self, path: str) -> str:
        """Say how a changed file differs: it may hold what belongs to another, as after a swap."""
        found, expected = self.found[path], self.expected[path]
        others = [other for other, digest in self.expected.items() if digest == found and other != path]
        whose = f", which is that of {others[0]}" if others else ""
        return f"its SHA-256 is {found[:12]}…{whose}, and was {expected[:12]}…"

    def check_input(self, file: Input, record: Record) -> None:
        """Check that what a job read is what another is recorded to have made, or that it still is what it was."""
        if file.maker is None:
            self.check_given(file, record)
            return
        maker = self.records.get(file.maker.name)
        if maker is None:
            if file.maker.name not in self.unreadable:
                self.report("unrecorded", file.path, f"there is no record of {file.maker.name}, which made it", record)
            return
        made = {output.path: output.digests for output in maker.outputs}
        if maker.digest != file.maker.digest or made.get(file.path) != file.digests:
            self.report("stale", record.name, f"it read {file.path} of another run of {maker.name}", record)
        else:
            self.links["inputs"] += 1

    def check_given(self, file: Input, record: Record) -> None:
        """Check a file that no job made."""
        if Path(file.path).parts[0] in ("results", "data") and Path(file.path).parts[1] in (self.profile, "raw"):
            self.report("unrecorded", file.path, f"{record.name} read it, but no record says what made it", record)
            return
        for path, digest in file.digests.items():
            found = self.found.get(path)
            if found == digest:
                self.links["inputs"] += 1
            elif found is None:
                self.report("missing", path, f"{record.name} read it", record)
            else:
                self.report("changed", path, f"{self.difference(path)} when {record.name} read it", record)

    def check_environment(self, record: Record) -> None:
        """Check the environment that a record refers to."""
        path = environment_path(record.profile, record.circumstances.environment)
        if path.as_posix() in {broken.what for broken in self.broken}:
            return
        try:
            read_environment(self.root / path)
        except UserError as error:
            kind: Kind = "changed" if (self.root / path).exists() else "missing"
            self.report(kind, path.as_posix(), str(error), record)
        else:
            self.links["environments"] += 1

    def check_others(self) -> None:
        """Report files beside results that no job is recorded to have made."""
        folders = {Path(path).parent for path in self.makers if self.profile in Path(path).parts[:2]}
        for folder in sorted(folders - {Path("results", self.profile)}):
            for file in sorted((self.root / folder).iterdir()) if (self.root / folder).is_dir() else ():
                path = (folder / file.name).as_posix()
                known = path in self.makers or file.name.startswith(".") or file.suffix == ".dvc" or file.is_dir()
                if not known and not self.unreadable:
                    self.broken.append(Broken("unrecorded", path, "no job is recorded to have made it"))

    def report(self, kind: Kind, what: str, reason: str, record: Record) -> None:
        """Note a broken link, once."""
        if (broken := Broken(kind, what, reason, record.name)) not in self.broken:
            self.broken.append(broken)

    def chains(self, job: str, path: str = "") -> list[list[str]]:
        """Return how figures and tables lead to a job's results, or to one of them: a chain of results for each.

        The shortest chains come first; each ends with the result, or is the result alone if nothing was made of it.
        """
        made = [path] if path else self.flow[job].outputs if job in self.flow else []
        waiting = [(list(made[:1]), made)]
        found, seen = [], {job}
        for chain, paths in waiting:  # grows while it is gone through
            reads = (name for name, flow in self.flow.items() if not set(paths).isdisjoint(flow.inputs))
            readers = [name for name in reads if name != OF_RECORDS]
            if not readers:
                found.append(chain)
            for name in [reader for reader in readers if reader not in seen]:
                seen.add(name)
                results = self.flow[name].outputs
                waiting.append(([results[0], *chain], results))
        return sorted(found, key=lambda chain: (len(chain), chain))


def below(folder: Path) -> Iterator[str]:
    """Yield the files below a folder, by their paths in it."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != SNAKEMAKES_OWN)
    return (file.relative_to(folder).as_posix() for file in files)


def parents(path: str) -> list[str]:
    """Return a path, and those of all folders that it lies in."""
    return [path, *(folder.as_posix() for folder in Path(path).parents)]


def is_drawing(record: Record) -> bool:
    """Say whether a job is one that draws figures or writes tables: it runs no model and makes results."""
    return record.model is None and record.determinism is None and record.outputs[0].path.startswith("results/")


def watched(files: list[str], size: int) -> Iterable[str]:
    """Return files, such that progress is shown while they are gone through, if they are large."""
    if size < WORTH_WATCHING:
        return files

    return progress(files, len(files), "Hashing files")
