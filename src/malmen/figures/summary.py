"""The summary page: every claim of the paper beside what this run measured.

:mod:`malmen.figures.after_malmen` makes such a page of later papers' claims.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from malmen.errors import UserError
from malmen.figures.compute import PricedEditor, compute_costs
from malmen.figures.evidence import Evidence, Finding
from malmen.figures.measurements import MEASUREMENTS, described, measure
from malmen.figures.metrics import METRICS, long_form, read_metrics, write_csv
from malmen.figures.setting import PAPERS, Setting
from malmen.figures.tables import (
    Cell,
    ColumnGroup,
    Grid,
    Line,
    html_table,
    markdown_text,
    to_markdown,
    write_with_sources,
)
from malmen.results.memory import MemoryFile
from malmen.results.sources import Shown
from malmen.runtime.files import beside
from malmen.runtime.text import counted
from malmen.runtime.web_page import banner, web_page

NOT_MEASURED = "not measured in this run"
REMARK = (
    "Scores are means of ES, GS and LS over seeds. Findings are not independent: several rest on the same runs; "
    "those on MEND and on summed shifts are the same where MEND is the sum. Times and memory differ from run to run."
)
UNTESTABLE = "Not testable: the values of m in this run do not reach far enough, or the run has no such data."


@dataclass(frozen=True)
class About:
    """What the page says of the run.

    Attributes:
        run: its name.
        data: the printed names of the data sets.
        setting: its setting.
        links: paths of figures and tables from the page, by printed name.
        heading: the heading of the page, without the run.
        remark: stands below the claims that were tested.
        untestable: stands below the others.
        times: whether claims are about times, so that the page says what they are.
    """

    run: str
    data: str
    setting: Setting = PAPERS
    links: Mapping[str, str] = field(default_factory=dict)
    heading: str = "The paper's claims"
    remark: str = REMARK
    untestable: str = UNTESTABLE
    times: bool = True

    @property
    def title(self) -> str:
        """The heading."""
        return f"{self.heading} in the run “{self.run}”"

    @property
    def behind(self) -> str:
        """A sentence on the data and, if there are times, one on them."""
        return f"Data: {self.data}. {self.setting.clock_sentence if self.times else ''}".rstrip()


Found = Sequence[tuple["Claim", Mapping[str, Finding]]]
"""The claims, each with its findings by label of the model."""


class Claim(BaseModel):
    """One claim of a paper.

    Attributes:
        id: its name in the CSV.
        claim: its wording.
        section: where it stands: the section of the paper, or which paper.
        holds_if: the criterion, in words.
        measurement: name of the function that applies it, in :data:`malmen.figures.measurements.MEASUREMENTS`.
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


def write_summary(claims: Path, evidence: Sequence[Evidence], about: About, stem: Path) -> None:
    """Write the page as ``stem.md`` and ``stem.html``, and its findings as ``stem.csv``.

    Args:
        claims: the file of claims.
        evidence: the measurements of each model.
        about: what the page says of the run.
        stem: path of the results without suffix.

    Raises:
        UserError: if the claims cannot be read.
    """
    found = [(claim, find(claim, evidence)) for claim in read_claims(claims)]
    parts = _parts(found, about)
    write_with_sources(_markdown(about, found, parts), _html(about, found, parts), stem, list(_shown(found, evidence)))
    write_csv(beside(stem, ".csv"), pd.DataFrame(_records(found)))


def _shown(found: Found, evidence: Sequence[Evidence]) -> Iterator[Shown]:
    """Yield the sources of the findings."""
    by_label = {item.label: item for item in evidence}
    for claim, findings in found:
        for label, finding in findings.items():
            values = {"measured": finding.measured, "verdict": finding.verdict}
            how = f"{described(claim.measurement)}: {claim.holds_if}"
            sources = by_label[label].sources(claim.measurement, claim.arguments)
            yield Shown.from_origins({"id": claim.id, "model": label}, values, how, sources)


def find(claim: Claim, evidence: Sequence[Evidence]) -> dict[str, Finding]:
    """Return the findings on a claim, by label of each model with data."""
    findings = {item.label: measure(item, claim.measurement, claim.arguments) for item in evidence}
    return {label: finding for label, finding in findings.items() if finding}


def _records(found: Found) -> list[dict[str, Any]]:
    """Return one record per claim and model, or one for a claim without measurements."""
    records = []
    for claim, findings in found:
        for label, finding in findings.items():
            records.append({"id": claim.id, "model": label, "verdict": finding.verdict, "measured": finding.measured})
        if not findings:
            records.append({"id": claim.id, "model": "", "verdict": NOT_MEASURED, "measured": ""})
    return records


def tally(verdicts: Sequence[str]) -> str:
    """Return how many findings hold, do not, and could not be tested."""
    holds, fails, open_ = (verdicts.count(kind) for kind in ("holds", "does not hold", "not testable"))
    return f"{holds} hold, {fails} do not, {open_} {'is' if open_ == 1 else 'are'} not testable."


def _counts(found: Found) -> str:
    """Return the tally, and what it counts."""
    verdicts = [finding.verdict for _, findings in found for finding in findings.values()]
    absent = sum(not findings for _, findings in found)
    missing = f"; {counted(absent, 'claim was', 'claims were')} not measured" if absent else ""
    return (
        f"{tally(verdicts)} {len(found)} claims, {len(verdicts)} findings: one per claim and model with data{missing}."
    )


def _parts(found: Found, about: About) -> dict[str, Grid]:
    """Return the tables of the page by heading: claims that were tested on some model, then the others."""
    tested = [item for item in found if any(finding.verdict != "not testable" for finding in item[1].values())]
    others = [item for item in found if item not in tested]
    parts = {"Tested in this run": tested, "Not testable in this run": others}
    remarks = {"Tested in this run": about.remark, "Not testable in this run": about.untestable}
    return {head: _grid(some, remarks[head]) for head, some in parts.items() if some}


def _grid(found: Found, remark: str) -> Grid:
    return Grid(
        caption="",
        corner="Claim",
        groups=(ColumnGroup((), ("Holds if", "Model", "Measured", "In this run")),),
        blocks=tuple(_block(claim, findings) for claim, findings in found),
        notes=(),
        remark=remark,
        prose=True,
    )


def _markdown(about: About, found: Found, parts: Mapping[str, Grid]) -> str:
    note = f"**{markdown_text(about.setting.note)}** " if about.setting.note else ""
    links = ", ".join(f"[{markdown_text(name)}]({quote(path)})" for name, path in about.links.items())
    tables = [text for head, grid in parts.items() for text in (f"## {head}\n", to_markdown(grid))]
    head = [
        f"# {markdown_text(about.title)}\n",
        f"**{markdown_text(_counts(found))}**\n",
        f"{note}{markdown_text(about.behind)}\n",
        *([f"See {links}.\n"] if links else []),
    ]
    return "\n".join([*head, *tables])


def _html(about: About, found: Found, parts: Mapping[str, Grid]) -> str:
    tables = [text for head, grid in parts.items() for text in (f"<h2>{escape(head)}</h2>", html_table(grid))]
    body = [
        f"<h1>{escape(about.title)}</h1>",
        "<main>",
        f"<p><strong>{escape(_counts(found))}</strong></p>",
        banner(about.setting.note),
        f"<p>{escape(about.behind)}</p>",
        *tables,
        "</main>",
    ]
    return web_page(about.title, body)


def _block(claim: Claim, findings: Mapping[str, Finding]) -> tuple[Line, ...]:
    """Return a line per model; the first line has the claim and its criterion."""
    order = sorted(findings.items(), key=lambda item: item[1].verdict == "not testable")
    rows = [(label, finding.measured, finding.verdict) for label, finding in order]
    lines = []
    for place, (label, measured, verdict) in enumerate(rows or [("", "", NOT_MEASURED)]):
        head = (f"{claim.claim} ({claim.section})", claim.holds_if) if place == 0 else ("", "")
        cells = [Cell(text) for text in (*head, label, measured)]
        lines.append((*cells, Cell(verdict, bold=verdict != NOT_MEASURED)))
    return tuple(lines)
