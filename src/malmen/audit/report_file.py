"""The result of an audit for programs: what ``malmen audit --json`` prints."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from malmen.audit.audit import Outcome
from malmen.audit.report import affected, verdict
from malmen.audit.trail import Kind
from malmen.runtime.files import write_text


class ReportPart(BaseModel):
    """A part of the report: fields are described by the strings below them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CheckedLink(ReportPart):
    """A link between two results, or between a result and what the configuration and the checkout say now."""

    verdict: Literal["holds"] | Kind
    """ "holds", or what is wrong. changed: the content differs from the record, or the code from its commit; missing:
    the file or the code does not exist; stale: inputs or settings have changed since; unrecorded: no recorded job made
    it; not here: it may be absent from this machine, and counts as no fault."""
    kind: str | None
    """What was checked: "files", "settings", "code", ...; null for a link that does not hold."""
    what: str
    """The path of the file, or the name of the job's record."""
    job: str
    """The name of the record of the job that made or read it; empty if there is none."""
    count: PositiveInt = 1
    """For how many links it stands: a CSV stands for each of its numbers."""
    reason: str | None = None
    """The evidence; null for a link that holds."""
    affects: list[list[str]] = []
    """Of a link that does not hold: the paths from a figure or table to what is wrong, the shortest one first."""


class JobCode(ReportPart):
    """The code of a job, whose digests are checked against its commit."""

    job: str
    """The name of the job's record."""
    commit: str | None
    """The commit at which it ran; null if git did not tell it."""
    uncommitted: list[str]
    """The files of its code that had uncommitted changes then."""
    changed_since: list[str]
    """The files of its code that have changed since, which is no fault."""


class AuditReport(ReportPart):
    """The result of an audit."""

    format: Literal[2] = 2
    """Version of this format."""
    run: str
    """The name of the configuration's run."""
    what: str
    """What was checked."""
    holds: bool
    """Whether every link holds, but for files that may be absent from this machine."""
    exit_code: Literal[0, 1]
    """With which the command ends."""
    verdict: list[str]
    """The sentences at the end of the printed report."""
    remarks: list[str]
    """Its further sentences."""
    counts: dict[str, NonNegativeInt]
    """How many links hold, by kind."""
    without_commit: list[str]
    """The names of the jobs for which the commit of the code is unknown."""
    made_at: dict[str, PositiveInt]
    """The number of jobs by the commit of their code, where it is known."""
    code: list[JobCode]
    """The code of every job that was checked."""
    rerun: list[str]
    """The names of the jobs that would run again, as their code, or what they read, has changed since."""
    results_of_rerun: list[str]
    """The figures, tables and pages that a re-run would make again, each by its first file."""
    links: list[CheckedLink]
    """Every link: first those that do not hold."""

    @classmethod
    def of(cls, outcome: Outcome) -> "AuditReport":
        """Return the report of an audit."""
        broken = [
            CheckedLink(
                verdict=one.kind,
                kind=None,
                what=one.what,
                job=one.job,
                reason=one.reason,
                affects=affected(outcome.trail, one),
            )
            for one in outcome.broken
        ]
        sound = [
            CheckedLink(verdict="holds", kind=one.kind, what=one.what, job=one.job, count=one.count)
            for one in outcome.links
            if one.count
        ]
        return cls(
            run=outcome.trail.run,
            what=outcome.what,
            holds=outcome.holds,
            exit_code=0 if outcome.holds else 1,
            verdict=verdict(outcome),
            remarks=list(outcome.remarks),
            counts=dict(outcome.counts),
            without_commit=outcome.without_commit,
            made_at=dict(outcome.made_at.most_common()),
            code=[
                JobCode(job=name, commit=one.commit, uncommitted=list(one.uncommitted), changed_since=list(one.changed))
                for name, one in sorted(outcome.trail.code.items())
            ],
            rerun=outcome.touched,
            results_of_rerun=outcome.results_touched,
            links=[*broken, *sound],
        )


def write_schema(path: Path) -> None:
    """Write the JSON schema of the report."""
    write_text(path, json.dumps(AuditReport.model_json_schema(), indent=1) + "\n")
