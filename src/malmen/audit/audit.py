"""The audit: it checks every link from figures and tables back to the raw data.

It hashes every file, follows every record to the records of its inputs, compares settings and seeds with the
configuration, and code with the commit that holds it, draws every figure and table again from the metrics, and compares
the numbers.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.drawings import check_drawings
from malmen.audit.planned import PlannedJob, planned_jobs
from malmen.audit.rerun import rerun
from malmen.audit.signature import check_signature as signature_of
from malmen.audit.signature import root_path
from malmen.audit.trail import Broken, Flow, Link, Trail, is_drawing, no_results
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.provenance.records import RAW, Record
from malmen.runtime.text import counted

logger = logging.getLogger("malmen")


@dataclass(frozen=True)
class Outcome:
    """The result of an audit.

    Attributes:
        trail: the records and files.
        links: the links that hold.
        broken: the broken links.
        remarks: further sentences for the report.
        what: what was checked, as the verdict names it.
    """

    trail: Trail
    links: Sequence[Link]
    broken: Sequence[Broken]
    remarks: Sequence[str]
    what: str

    @property
    def holds(self) -> bool:
        """Whether every link holds; files that may be absent from this machine do not count."""
        return all(one.kind == "not here" for one in self.broken)

    @property
    def counts(self) -> Counter[str]:
        """The number of links that hold, by kind."""
        numbers: Counter[str] = Counter()
        for link in self.links:
            numbers[link.kind] += link.count
        return numbers

    @property
    def without_commit(self) -> list[str]:
        """The names of the jobs whose commit is not known, as git did not tell it to them."""
        return sorted(name for name, code in self.trail.code.items() if code.commit is None)

    @property
    def made_at(self) -> Counter[str]:
        """The number of jobs by the commit of their code, where it is known."""
        return Counter(code.commit for code in self.trail.code.values() if code.commit)

    @property
    def touched(self) -> list[str]:
        """The names of the jobs that a re-run would do: those whose code has changed since, and those after them."""
        changed = [name for name, code in self.trail.code.items() if code.changed]
        return self.trail.followed([*changed, *self.trail.replanned, *self.trail.new])

    @property
    def results_touched(self) -> list[str]:
        """The figures, tables and pages that would be made again, each by its first file."""
        jobs = (self.trail.records[name] for name in self.touched if name in self.trail.records)
        return [record.outputs[0].path for record in jobs if is_drawing(record)]


@dataclass(frozen=True)
class Scope:
    """How much an audit checks.

    Attributes:
        figures_only: whether files that no figure or table needs may be absent.
        rerun: number of jobs to repeat.
        seed: seed of the choice of these jobs.
        signers: OpenSSH's file of allowed signers; if None, the signer of the records is not checked.
    """

    figures_only: bool = False
    rerun: int = 0
    seed: int = 0
    signers: Path | None = None


def audit(run: str, configfile: Path, root: Path = Path(), scope: Scope | None = None) -> Outcome:
    """Check everything that leads to the figures and tables of a configuration.

    Args:
        run: the name of the configuration's run.
        configfile: the configuration.
        root: the project's root.
        scope: how much to check.

    Raises:
        UserError: if there are no results, or Snakemake cannot resolve the configuration's jobs.
    """
    if not (root / "results" / run).exists():
        raise no_results(run)
    scope = scope or Scope()
    trail = Trail(run, root, absent_allowed=scope.figures_only)
    trail.check()
    logger.info("Comparing settings with the configuration, and code with its commits")
    planned = planned_jobs(configfile, root)
    check_sources(trail)
    with tempfile.TemporaryDirectory() as scratch:
        commits = Commits(root, Path(scratch).resolve())
        check_plan(trail, planned, lambda commit: commits.plan(commit, configfile))
        check_code(trail, trail.records.values(), commits, {job.name: job.code for job in planned})
        remarks = check_drawings(trail, trail.records.values())
        remarks += check_signature(trail, scope.signers)
        remarks += rerun(trail, scope.rerun, scope.seed)
    downloads = {name for name, record in trail.records.items() if record.run == RAW}  # shared by all configurations
    beyond = len(set(trail.records) - {job.name for job in planned} - downloads)
    if beyond:
        records = counted(beyond, "record belongs to a job", "records belong to jobs")
        remarks.append(f"{records} outside the configuration; their files were checked.")
    ran = [record.circumstances for record in trail.records.values()]
    recording, work = sum(one.recording_seconds for one in ran), sum(one.seconds for one in ran)
    share = recording / (recording + work) if ran else 0.0
    remarks.append(f"Recording took {recording:.1f} s beside {work:,.0f} s of work ({100 * share:.1f} %).")
    return Outcome(trail, trail.links, trail.broken, remarks, f"every number in results/{run}")


PlanAt = Callable[[str | None], Mapping[str, PlannedJob]]
"""Returns the jobs that the code at a commit makes of the configuration, by name; none if that is not known."""


def check_plan(trail: Trail, planned: Iterable[PlannedJob], plan_at: PlanAt = lambda _: {}) -> None:
    """Compare the records with the jobs that the configuration now defines.

    Where they differ, ``plan_at`` tells whether only the code has changed since, which is no fault.
    """
    for job in planned:
        trail.flow.setdefault(job.name, Flow(job.inputs, job.outputs))
        if record := trail.records.get(job.name):
            check_job(trail, record, job, plan_at)
        elif job.name not in trail.unreadable:
            check_absent(trail, job, plan_at)


def check_job(trail: Trail, record: Record, job: PlannedJob, plan_at: PlanAt) -> None:
    """Compare a record with its job as it would run now."""
    found = differences_of(record, job)
    said = [difference for some in found.values() for difference in some]
    if said:
        then = plan_at(record.circumstances.commit).get(job.name)
        if then and not any(differences_of(record, then).values()):
            trail.replanned[job.name] = said
            found = {kind: [] for kind in found}
    for kind, differences in found.items():
        trail.links += [] if differences else [Link(kind, job.name, job.name)]
        trail.broken += [Broken("stale", job.name, difference, job.name) for difference in differences]


def check_absent(trail: Trail, job: PlannedJob, plan_at: PlanAt) -> None:
    """Report a job without a record, unless the code knew nothing of it when the others ran."""
    commits = {record.circumstances.commit for record in trail.records.values() if record.run == trail.run}
    plans = [plan_at(commit) for commit in commits]
    there = [path for path in job.outputs if (trail.root / path).exists()]
    if there:
        reason = f"{there[0]} exists, but no record says how it was made"
        trail.broken.append(Broken("unrecorded", job.name, reason, job.name))
    elif plans and all(plan and job.name not in plan for plan in plans):
        trail.new.append(job.name)
    else:
        trail.broken.append(Broken("missing", job.name, "the job has not been run", job.name))


def differences_of(record: Record, job: PlannedJob) -> dict[str, list[str]]:
    """Return the differences between a record and the job as it would run now, by kind of link."""
    settings = differences(flat(record.settings), flat(job.settings))
    seeds = {name for name in settings if name.rpartition(".")[2] == "seed" or ".seeds." in f".{name}."}
    files = {
        "inputs": ([file.path for file in record.inputs], list(job.inputs)),
        "outputs": ([file.path for file in record.outputs], list(job.outputs)),
    }
    rearranged = []
    for kind, (then, now) in files.items():
        moved = [f"{path} was added" for path in now if path not in then]
        moved += [f"{path} was removed" for path in then if path not in now]
        if then != now:
            rearranged.append(f"its {kind} differ: {', '.join(moved) or 'their order has changed'}")
    return {
        "settings": [f"the setting {name} {said}" for name, said in settings.items() if name not in seeds],
        "seeds": [f"the seed {name} {said}" for name, said in settings.items() if name in seeds],
        "files of jobs": rearranged,
    }


def flat(settings: Any, place: str = "") -> dict[str, Any]:
    """Return nested settings by dotted path: keys of sections, indices of lists."""
    if isinstance(settings, Mapping):
        items = list(settings.items())
    elif isinstance(settings, list) and any(isinstance(value, Mapping | list) for value in settings):
        items = list(enumerate(settings))
    else:
        return {place: settings}
    parts = [flat(value, f"{place}.{key}" if place else str(key)) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Describe how values differ, by name."""
    said = {}
    for name in sorted({*then, *now}):
        if name not in now:
            said[name] = f"was {then[name]!r} and is not set any more"
        elif name not in then:
            said[name] = f"is {now[name]!r} and was not set"
        elif then[name] != now[name]:
            said[name] = f"is {now[name]!r} and was {then[name]!r}"
    return said


def check_sources(trail: Trail) -> None:
    """Compare downloads with the list of upstream files and their checksums."""
    for record in trail.records.values():
        if record.upstream is None:
            continue
        name = Path(record.outputs[0].path).name
        listed = upstream_files().get(name)
        if listed is None or listed.checksum != record.upstream.checksum:
            reason = f"upstream_files.yaml now lists the checksum {listed.checksum if listed else None}"
            trail.report("stale", record.name, reason, record)
        else:
            trail.links.append(Link("upstream files", record.outputs[0].path, record.name))


def check_signature(trail: Trail, signers: Path | None) -> list[str]:
    """Check the signature of the records, if there is one; return remarks."""
    try:
        said = signature_of(trail.run, signers, trail.root)
    except UserError as error:
        trail.broken.append(Broken("changed", root_path(trail.run).as_posix(), str(error)))
        return []
    trail.links += [Link("signatures", root_path(trail.run).as_posix(), "")] if said else []
    return [said] if said else []
