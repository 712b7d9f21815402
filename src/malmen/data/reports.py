"""The numbers that each step of rebuilding the data read, kept and dropped by reason, as JSON and as a table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from malmen.errors import UserError
from malmen.runtime.files import write_text


@dataclass(frozen=True)
class Report:
    """The counts of a step, or of a part of it.

    Attributes:
        step: name of the step.
        unit: what is counted.
        read: number read.
        dropped: numbers dropped, by reason.
        kept: number kept.
    """

    step: str
    unit: str
    read: int
    dropped: Mapping[str, int]
    kept: int

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the numbers add up."""
        if self.read != self.kept + sum(self.dropped.values()):
            raise ValueError(f"{self.step}: {self.read} {self.unit} were read, but {self.kept} kept and {self.dropped}")

    def write(self, path: Path) -> None:
        """Write the counts as JSON."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


def read_report(path: Path) -> Report:
    """Read a report; raise :class:`UserError` if the file is not one."""
    try:
        return TypeAdapter(Report).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not the report of a step ({type(error).__name__}); run the step again.") from None


def total(reports: Sequence[Report]) -> Report:
    """Add up the reports of a step's parts; there must be at least one."""
    first = reports[0]
    dropped = {reason: sum(report.dropped[reason] for report in reports) for reason in first.dropped}
    return Report(
        first.step, first.unit, sum(report.read for report in reports), dropped, sum(report.kept for report in reports)
    )


def table(reports: Iterable[Report]) -> str:
    """Return the counts of all steps as a Markdown table."""
    lines = ["| step | read | dropped | kept |", "|---|---:|---|---:|"]
    for report in reports:
        reasons = (f"{count:,} {reason.replace('_', ' ')}" for reason, count in report.dropped.items())
        lines.append(
            f"| {report.step} | {report.read:,} {report.unit} | {', '.join(reasons) or '-'} | {report.kept:,} |"
        )
    return "\n".join(lines) + "\n"
