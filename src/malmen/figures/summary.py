"""The summary page: every claim of the paper beside what this run measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from malmen.errors import UserError
from malmen.figures.claims import MEASUREMENTS, Evidence, Finding, measure
from malmen.figures.compute import PricedEditor, compute_costs
from malmen.figures.metrics import METRICS, long_form, read_metrics, write_csv
from malmen.figures.tables import Cell, ColumnGroup, Grid, Line, write_page
from malmen.results.memory import MemoryFile
from malmen.results.sources import Shown
from malmen.runtime.files import beside

NOT_MEASURED = "not measured in this run"


class Claim(BaseModel):
    """One claim of the paper.

    Attributes:
        id: its name in the CSV.
        claim: its wording.
        section: its section in the paper.
        holds_if: the criterion, in words.
        measurement: name of the function that applies it, in :data:`malmen.figures.claims.MEASUREMENTS`.
        arguments: arguments of the function.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    claim: str
    section: str
    holds_if: str
    measurement: Annotated[str, Field(pattern="|".join(f"^{name}$" for name in MEASUREMENTS))]
    arguments: dict[str, str | float | list[str]]


def read_claims(path: Path) -> list[Claim]:
    """Read the claims.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        return TypeAdapter(list[Claim]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The claims {path} cannot be read ({reason}); restore them from git.") from None


def collect(
    metrics: Sequence[Path], priced: Sequence[PricedEditor], memory: Sequence[Path], variants: Mapping[str, str]
) -> list[Evidence]:
    """Return the evidence of each model, in the order of ``priced``.

    Args:
        metrics: all metrics files.
        priced: all editors, with their files of costs.
        memory: files of memory measurements; the first one of each model counts.
        variants: the editor of each variant of Table 1.

    Raises:
        UserError: if a file is missing or malformed.
    """
    files = read_metrics(metrics)
    values = long_form(files, (*METRICS, "residual"))
    costs = compute_costs(priced)
    measured = {file.model: (file, path) for path in reversed(memory) for file in [MemoryFile.read(path)]}
    return [
        Evidence(
            label=label,
            metrics=values[values["model"] == model],
            costs=costs[costs["model"] == model],
            memory=measured[model][0] if model in measured else None,
            labels={item.editor: item.editor_label for item in files if item.model == model},
            variants=variants,
            cost_sources={item.editor: item.costs.origins() for item in priced if item.model == model},
            memory_source=measured[model][1] if model in measured else None,
        )
        for model, label in dict.fromkeys((item.model, item.model_label) for item in priced)
    ]


def write_summary(claims: Path, evidence: Sequence[Evidence], run: str, data: str, stem: Path) -> None:
    """Write the page as ``stem.md`` and ``stem.html``, and its findings as ``stem.csv``.

    Args:
        claims: the paper's claims.
        evidence: the measurements of each model.
        run: the name of the run.
        data: the printed names of the data sets.
        stem: path of the results without suffix.

    Raises:
        UserError: if the claims cannot be read.
    """
    found = [(claim, find(claim, evidence)) for claim in read_claims(claims)]
    grid = _grid(found, run, data)
    write_page(grid, stem, list(_shown(found, evidence)))
    write_csv(beside(stem, ".csv"), pd.DataFrame(_records(found)))


def _shown(found: Sequence[tuple[Claim, Mapping[str, Finding]]], evidence: Sequence[Evidence]) -> Iterator[Shown]:
    """Yield the sources of the findings."""
    by_label = {item.label: item for item in evidence}
    for claim, findings in found:
        for label, finding in findings.items():
            values = {"measured": finding.measured, "verdict": finding.verdict}
            how = f"{claim.measurement} in src/malmen/figures/claims.py: {claim.holds_if}"
            sources = by_label[label].sources(claim.measurement, claim.arguments)
            yield Shown.from_origins({"id": claim.id, "model": label}, values, how, sources)


def find(claim: Claim, evidence: Sequence[Evidence]) -> dict[str, Finding]:
    """Return the findings on a claim, by label of each model with data."""
    findings = {item.label: measure(item, claim.measurement, claim.arguments) for item in evidence}
    return {label: finding for label, finding in findings.items() if finding}


def _records(found: Sequence[tuple[Claim, Mapping[str, Finding]]]) -> list[dict[str, Any]]:
    """Return one record per claim and model, or one for a claim without measurements."""
    records = []
    for claim, findings in found:
        for label, finding in findings.items():
            records.append({"id": claim.id, "model": label, "verdict": finding.verdict, "measured": finding.measured})
        if not findings:
            records.append({"id": claim.id, "model": "", "verdict": NOT_MEASURED, "measured": ""})
    return records


def _grid(found: Sequence[tuple[Claim, Mapping[str, Finding]]], run: str, data: str) -> Grid:
    verdicts = [finding.verdict for _, findings in found for finding in findings.values()]
    counts = ", ".join(f"{verdicts.count(kind)} {kind!r}" for kind in ("holds", "does not hold", "cannot be told"))
    absent = sum(not findings for _, findings in found)
    return Grid(
        caption=f"The paper's claims, and what the run “{run}” measured. Data: {data}.",
        corner="Claim",
        groups=(ColumnGroup((), ("Holds if", "Model", "Measured", "In this run")),),
        blocks=tuple(_block(claim, findings) for claim, findings in found),
        notes=(),
        remark=(
            f"{len(found)} claims, {len(verdicts)} findings (a claim is measured on every model that has the data): "
            f"{counts}; claims {NOT_MEASURED}: {absent}. Scores are means of ES, GS and LS over seeds. “Cannot be "
            "told” means that m was not varied far enough. Findings are not independent: several claims rest on the "
            "same runs; those on MEND and on summed shifts do where MEND stands for the sum. Times and sizes in memory "
            "differ from run to run."
        ),
        prose=True,
    )


def _block(claim: Claim, findings: Mapping[str, Finding]) -> tuple[Line, ...]:
    """Return a line per model; the first line has the claim and its criterion."""
    rows = [(label, finding.measured, finding.verdict) for label, finding in findings.items()]
    lines = []
    for place, (label, measured, verdict) in enumerate(rows or [("", "", NOT_MEASURED)]):
        head = (f"{claim.claim} ({claim.section})", claim.holds_if) if place == 0 else ("", "")
        cells = [Cell(text) for text in (*head, label, measured)]
        lines.append((*cells, Cell(verdict, bold=verdict != NOT_MEASURED)))
    return tuple(lines)
