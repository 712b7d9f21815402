"""Drawing figures and tables again from their recorded inputs, and comparing them with those on disk."""

import logging
import tempfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from malmen.audit.replay import prepare, replay
from malmen.audit.rerun import rows
from malmen.audit.trail import OF_RECORDS, Link, Trail, is_drawing
from malmen.provenance.environment import environment, environment_of, same_numbers
from malmen.provenance.records import Record
from malmen.runtime.text import counted

logger = logging.getLogger("malmen")

PICTURES = (".pdf", ".png", "explorer.html")
"""How files end whose bytes depend on the versions of the packages that drew them."""


def check_drawings(trail: Trail, records: Iterable[Record]) -> list[str]:
    """Draw the figures and tables among the results of jobs again from their recorded inputs; return remarks.

    Args:
        trail: the checked trail, to which differences are reported.
        records: the records of the jobs.
    """
    drawings = [record for record in records if is_drawing(record)]
    intact = [record for record in drawings if drawable(record, trail)]
    made = {output.path for record in intact for output in record.outputs}
    readers = {record.name for record in intact if any(file.path in made for file in record.inputs)}
    # What reads others comes last; what has the same code is drawn together.
    intact.sort(key=lambda record: (record.name in readers, str(trail.checkout(record.name))))
    here = environment(uses_gpu=False)
    elsewhere = {record.name for record in intact if not same_numbers(environment_of(record, trail.root), here)}
    logger.info("Drawing %s again", counted(len(intact), "figure or table", "figures and tables"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        prepare(intact, trail.root.resolve(), scratch)
        failures: dict[str, str] = {}
        for code, some in groupby(intact, lambda record: trail.checkout(record.name)):
            failures |= replay(list(some), scratch, code) if code else {}
        for record in intact:
            if record.name in failures:
                trail.report("stale", record.name, f"drawing it again failed: {failures[record.name]}", record)
            else:
                compare(record, trail, scratch, pictures=record.name not in elsewhere)
    remarks = []
    if skipped := len(drawings) - len(intact):
        jobs = counted(skipped, "drawing job was", "drawing jobs were")
        remarks.append(f"{jobs} not repeated, because an input, an output or the code differs or is not here.")
    if elsewhere:
        drawn = counted(len(elsewhere), "figure or table was", "figures and tables were")
        remarks.append(f"{drawn} made on another platform; their PDF and PNG files and the explorer were not compared.")
    return remarks


def drawable(record: Record, trail: Trail) -> bool:
    """Return whether the audit can repeat a job: its inputs, code and settings are as recorded."""
    if record.rule == OF_RECORDS and any(one.kind != "not here" for one in trail.broken):
        return False
    unsound = {one.what for one in trail.broken if one.kind != "stale" or one.what == record.name}
    read = {path for file in record.inputs for path in file.digests}
    return record.name not in unsound and not read & unsound and trail.checkout(record.name) is not None


def compare(record: Record, trail: Trail, scratch: Path, pictures: bool) -> None:
    """Compare repeated drawings with those on disk; PDF and PNG only if ``pictures``."""
    for output in record.outputs:
        path, (there, again) = output.path, (base / output.path for base in (trail.root, scratch))
        if not there.exists() or (path.endswith(PICTURES) and not pictures):
            continue
        if there.read_bytes() == again.read_bytes():
            kind = "numbers" if there.suffix == ".csv" else "drawings"
            trail.links.append(Link(kind, path, record.name, cells(there)))
        else:
            said = f"it does not follow from its inputs: {first_difference(there, again)}"
            flagged = [one for one in trail.broken if one.what == path and one.kind == "changed"]
            for one in flagged:
                trail.broken.remove(one)
                said = f"{one.reason}; {said}"
            trail.report("changed", path, said, record)


def cells(path: Path) -> int:
    """Return the number of numeric cells in a CSV; 1 for other files."""
    if path.suffix != ".csv":
        return 1
    return sum(isinstance(cell, float) for row in rows(path) for cell in row)


def first_difference(there: Path, again: Path) -> str:
    """Describe the first difference between two files."""
    if there.suffix in (".pdf", ".png"):
        return "drawn again, the picture differs"
    lines = [path.read_text(encoding="utf-8", errors="replace").splitlines() for path in (there, again)]
    for number, (old, new) in enumerate(zip(*lines, strict=False), start=1):
        if old != new:
            start = max(next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0) - 20, 0)
            return f"line {number} is {old[start : start + 60]!r}; drawn again, it is {new[start : start + 60]!r}"
    return f"it has {len(lines[0])} lines; drawn again, it has {len(lines[1])}"
