"""The audit: from every figure and table back to the raw sources, link by link.

It hashes every file anew, follows every record to those of its inputs, compares settings, seeds and code with the
configuration and the checkout, and draws every figure and table again from the metrics to compare the numbers.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.audit.planned import PlannedJob, planned_jobs
from malmen.audit.replay import prepare, replay
from malmen.audit.rerun import rerun, rows
from malmen.audit.signature import check_signature as signature_of
from malmen.audit.signature import root_path
from malmen.audit.trail import OF_RECORDS, Broken, Flow, Trail, is_drawing, parents
from malmen.config.load import load_file
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.provenance.environment import environment, environment_of, same_numbers
from malmen.provenance.records import Record
from malmen.runtime.code_digest import PACKAGE, ROOT, source
from malmen.runtime.text import counted, first_few

logger = logging.getLogger("malmen")

PICTURES = (".pdf", ".png")
"""Endings of files whose bytes depend on the versions of the packages that drew them."""
SHOWN = 5
"""So many jobs are named that share one reason."""


ADVICE = "What is missing, or differs and is deleted first, `snakemake PATH` makes anew (with the same --configfile)."
"""What to do about broken links."""


@dataclass(frozen=True)
class Outcome:
    """What an audit found.

    Attributes:
        trail: the records and files.
        links: how many links hold, by kind.
        broken: those that do not.
        remarks: what else is to be said.
    """

    trail: Trail
    links: Counter[str]
    broken: Sequence[Broken]
    remarks: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether every link holds, or is at most not on this machine, where that was allowed."""
        return all(one.kind == "not here" for one in self.broken)


@dataclass(frozen=True)
class Scope:
    """How much an audit checks.

    Attributes:
        figures_only: whether what figures and tables are not drawn from may be absent.
        rerun: how many jobs are done once more, to compare what they make.
        seed: of the choice of these jobs.
        signers: OpenSSH's file of allowed signers; if None, it is not checked whose key signed the records.
    """

    figures_only: bool = False
    rerun: int = 0
    seed: int = 0
    signers: Path | None = None


def audit(configfile: Path, root: Path = Path(), scope: Scope | None = None) -> Outcome:
    """Check everything that leads to the figures and tables of a configuration.

    Args:
        configfile: the configuration.
        root: the project's root.
        scope: how much is checked.

    Raises:
        UserError: if the configuration is wrong, or its jobs cannot be resolved.
    """
    scope = scope or Scope()
    trail = Trail(load_file(configfile).run, root, absent_allowed=scope.figures_only)
    trail.check()
    logger.info("Comparing settings and code with the configuration and the checkout")
    planned = planned_jobs(configfile, root)
    check_plan(trail, planned)
    check_sources(trail)
    remarks = check_numbers(trail)
    remarks += check_signature(trail, scope.signers)
    remarks += rerun(trail, scope.rerun, scope.seed)
    beyond = len(set(trail.records) - {job.name for job in planned} - raw_records(trail))
    if beyond:
        records = counted(beyond, "record is of a job", "records are of jobs")
        remarks.append(f"{records} that the configuration does not have; what was made there was checked.")
    return Outcome(trail, trail.links, trail.broken, [*remarks, cost_of_recording(trail)])


def cost_of_recording(trail: Trail) -> str:
    """Say how much of the jobs' time it took to record them."""
    ran = [record.circumstances for record in trail.records.values()]
    recording, work = sum(one.recording_seconds for one in ran), sum(one.seconds for one in ran)
    share = recording / (recording + work) if ran else 0.0
    return f"Recording took {recording:.1f} s beside {work:,.0f} s of work ({100 * share:.1f} %)."


def raw_records(trail: Trail) -> set[str]:
    """Return the names of the records of downloads, which other configurations share."""
    return {name for name, record in trail.records.items() if record.profile == "raw"}


def check_plan(trail: Trail, planned: Iterable[PlannedJob]) -> None:
    """Compare records with the jobs that the configuration and the checkout have now."""
    for job in planned:
        trail.flow.setdefault(job.name, Flow(job.inputs, job.outputs))
        record = trail.records.get(job.name)
        if record is not None:
            for kind, differences in differences_of(record, job).items():
                trail.links[kind] += not differences
                trail.broken += [Broken("stale", job.name, said, job.name) for said in differences]
        elif job.name not in trail.unreadable:
            there = [path for path in job.outputs if (trail.root / path).exists()]
            reason = "the configuration has this job, but it has not been run"
            if there:
                reason = f"the configuration has this job and {there[0]} is there, but no record says how it was made"
            trail.broken.append(Broken("unrecorded" if there else "missing", job.name, reason, job.name))


def differences_of(record: Record, job: PlannedJob) -> dict[str, list[str]]:
    """Say in what a record differs from the job as it would be run now, by kind of link."""
    settings = differences(flat(record.settings), flat(job.settings))
    seeds = {name for name in settings if name.rpartition(".")[2] == "seed" or ".seeds." in f".{name}."}
    files = {
        "inputs": ([file.path for file in record.inputs], list(job.inputs)),
        "outputs": ([file.path for file in record.outputs], list(job.outputs)),
    }
    return {
        "settings": [f"the setting {name} {said}" for name, said in settings.items() if name not in seeds],
        "seeds": [f"the seed {name} {said}" for name, said in settings.items() if name in seeds],
        "code": [f"{file_of(name)} {said}" for name, said in differences(record.code, job.code, code=True).items()],
        "files of jobs": [
            f"its {kind} are others: {rearranged(then, now)}" for kind, (then, now) in files.items() if then != now
        ],
    }


def rearranged(then: Sequence[str], now: Sequence[str]) -> str:
    """Say what was added to files and removed from them, or that they are in another order."""
    added = [f"{path} was added" for path in now if path not in then]
    removed = [f"{path} was removed" for path in then if path not in now]
    return ", ".join([*added, *removed]) or "their order has changed"


def flat(settings: Any, place: str = "") -> dict[str, Any]:
    """Return settings by their place: sections by name, lists by number."""
    if isinstance(settings, Mapping):
        items = list(settings.items())
    elif isinstance(settings, list) and any(isinstance(value, Mapping | list) for value in settings):
        items = list(enumerate(settings))
    else:
        return {place: settings}
    parts = [flat(value, f"{place}.{key}" if place else str(key)) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any], code: bool = False) -> dict[str, str]:
    """Say how values differ, by name; of code only that it does."""
    said = {}
    for name in sorted({*then, *now}):
        if name not in now:
            said[name] = "is no longer used" if code else f"was {then[name]!r} and is gone"
        elif name not in then:
            said[name] = "was not used then" if code else f"is {now[name]!r} and was not set then"
        elif then[name] != now[name]:
            said[name] = "has changed since" if code else f"is {now[name]!r} and was {then[name]!r}"
    return said


def file_of(name: str) -> str:
    """Return the file of a module or of a script, as records name them."""
    if name.split(".", maxsplit=1)[0] != PACKAGE:
        return f"workflow/{name}"
    file = source(name)
    return f"src/{file.relative_to(ROOT.parent).as_posix()}" if file else f"src/{name.replace('.', '/')}.py"


def check_sources(trail: Trail) -> None:
    """Compare downloads with the list of upstream files and their checksums."""
    for record in trail.records.values():
        if record.upstream is None:
            continue
        name = Path(record.outputs[0].path).name
        listed = upstream_files().get(name)
        if listed is None or listed.checksum != record.upstream.checksum:
            reason = f"upstream_files.yaml now gives the checksum {listed.checksum if listed else None}"
            trail.report("stale", record.name, reason, record)
        else:
            trail.links["upstream files"] += 1


def check_signature(trail: Trail, signers: Path | None) -> list[str]:
    """Check the signature under the records, if there is one; return what is to be said of it."""
    try:
        said = signature_of(trail.profile, signers, trail.root)
    except UserError as error:
        trail.broken.append(Broken("changed", root_path(trail.profile).as_posix(), str(error)))
        return []
    trail.links["signatures"] += said is not None
    return [said] if said else []


def check_numbers(trail: Trail) -> list[str]:
    """Draw all figures and tables again from what they were drawn from; return remarks."""
    drawings = [record for record in trail.records.values() if is_drawing(record)]
    intact = in_order([record for record in drawings if drawable(record, trail)])
    here = environment(uses_gpu=False)
    elsewhere = {record.name for record in intact if not same_numbers(environment_of(record, trail.root), here)}
    logger.info("Drawing %s again", counted(len(intact), "figure or table", "figures and tables"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve()
        prepare(intact, trail.root.resolve(), scratch)
        failures = replay(intact, scratch) if intact else {}
        for record in intact:
            if record.name in failures:
                trail.report("stale", record.name, f"it cannot be drawn again: {failures[record.name]}", record)
            else:
                compare(record, trail, scratch, pictures=record.name not in elsewhere)
    remarks = []
    if skipped := len(drawings) - len(intact):
        jobs = counted(skipped, "job that draws was", "jobs that draw were")
        remarks.append(f"{jobs} not done again: something made or read there does not hold (above).")
    if elsewhere:
        drawn = counted(len(elsewhere), "figure or table was", "figures and tables were")
        remarks.append(f"{drawn} made on another platform: PDF and PNG not compared.")
    return remarks


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return records such that those of jobs that read what others make come last."""
    made = {output.path for record in records for output in record.outputs}
    return sorted(records, key=lambda record: any(file.path in made for file in record.inputs))


def drawable(record: Record, trail: Trail) -> bool:
    """Say whether a job can be done again as it was: what it read, and its code and settings, are as recorded."""
    if record.rule == OF_RECORDS and any(one.kind != "not here" for one in trail.broken):
        return False
    unsound = {one.what for one in trail.broken if one.kind != "stale" or one.what == record.name}
    read = {path for file in record.inputs for path in file.digests}
    return record.name not in unsound and not read & unsound


def compare(record: Record, trail: Trail, scratch: Path, pictures: bool) -> None:
    """Compare what was drawn again with what is there; ``pictures``: PDF and PNG as well."""
    for output in record.outputs:
        path, (there, again) = output.path, (base / output.path for base in (trail.root, scratch))
        if not there.exists() or (there.suffix in PICTURES and not pictures):
            continue
        if there.read_bytes() == again.read_bytes():
            trail.links["numbers" if there.suffix == ".csv" else "drawings"] += cells(there)
        else:
            said = f"it does not follow from what it was drawn from: {first_difference(there, again)}"
            flagged = [one for one in trail.broken if one.what == path and one.kind == "changed"]
            for one in flagged:
                trail.broken.remove(one)
                said = f"{one.reason}; {said}"
            trail.report("changed", path, said, record)


def cells(path: Path) -> int:
    """Return how many numbers a CSV holds; other files count once."""
    if path.suffix != ".csv":
        return 1
    return sum(isinstance(cell, float) for row in rows(path) for cell in row)


def first_difference(there: Path, again: Path) -> str:
    """Say where two files differ first."""
    if there.suffix in PICTURES:
        return "drawn again, the picture is another"
    lines = [path.read_text(encoding="utf-8", errors="replace").splitlines() for path in (there, again)]
    for number, (old, new) in enumerate(zip(*lines, strict=False), start=1):
        if old != new:
            start = max(next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0) - 20, 0)
            return f"line {number} says {old[start : start + 60]!r}, drawn again {new[start : start + 60]!r}"
    return f"it has {len(lines[0])} lines, drawn again {len(lines[1])}"


def report(outcome: Outcome) -> str:
    """Return what an audit found, as text."""
    links, trail = outcome.links, outcome.trail
    counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(links.items()) if number)
    total = f"{counted(links.total(), 'link holds', 'links hold')} ({counts})."
    if not outcome.broken:
        verdict = [f"Everything holds: every number of results/{trail.profile} leads back to its raw data."]
    else:
        kinds = Counter(one.kind for one in outcome.broken)
        said = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        broken = counted(len(outcome.broken), "link is", "links are")
        verdict = [f"{said}."] if outcome.holds else [f"{broken} broken: {said}.", ADVICE]
    return "\n".join([*paragraphs(outcome), *outcome.remarks, total, *verdict])


def paragraphs(outcome: Outcome) -> list[str]:
    """Return the broken links: those with one reason together, each with the chain that leads to it."""
    groups: dict[tuple[str, str], list[Broken]] = {}
    for one in outcome.broken:
        groups.setdefault((one.kind, one.reason), []).append(one)
    lines = []
    for (kind, reason), members in groups.items():
        lines += [f"{kind + ':':<12}{one.what}" for one in members[:SHOWN]]
        if len(members) > SHOWN:
            lines.append(f"{'':<12}and {len(members) - SHOWN} more")
        lines += [f"{'':<14}{reason}", f"{'':<14}{dependents(outcome.trail, members[0])}", ""]
    return lines


def dependents(trail: Trail, broken: Broken) -> str:
    """Say which figures and tables depend on a broken link, and by which chain the first does."""
    read = {file for flow in trail.flow.values() for file in flow.inputs}
    path = next((place for place in parents(broken.what) if place in trail.makers or place in read), "")
    chains = trail.chains(broken.job, path)
    if not any(chains):
        return "no recorded figure or table depends on it"
    first, *others = chains
    if len(first) == 1:
        return f"it is a result itself: {first[0]}"
    does = "so does 1 other" if len(others) == 1 else f"so do {len(others)} others"
    also = f"; {does}: {first_few([chain[0] for chain in others], SHOWN)}" if others else ""
    return f"leads to it: {' ← '.join(first)}{also}"
