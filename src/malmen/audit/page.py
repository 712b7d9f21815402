"""The lineage page of the report: it links each figure and table to its runs, and the runs to the raw data."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from malmen.audit.lineage import described, format_value, lasting, maker, reached
from malmen.audit.trail import Trail
from malmen.provenance.records import Input, Record
from malmen.results.sources import Shown, SourcesFile
from malmen.runtime.files import write_text

STYLE = (
    "body{font:14px sans-serif} table{border-collapse:collapse} th,td{padding:.15em .7em;text-align:left;"
    "vertical-align:top;border-bottom:1px solid #ddd} code{font-size:12px}"
)
INTRODUCTION = (
    "What each figure and table shows, how it was computed, and from which runs. Each file links to the job that "
    "made it, and each job to its inputs, back to raw data. Hashes are SHA-256, checked by <code>malmen audit</code>."
)


def write_lineage(run: str, sources: Sequence[Path], out: Path) -> None:
    """Write the lineage page.

    Only measured numbers differ between repeated runs, so that an audit can compare the page.

    Args:
        run: the name of the run.
        sources: the sources files of all figures and tables, which map numbers to runs.
        out: the page.

    Raises:
        UserError: if a record has been changed.
    """
    trail = Trail(run)
    shown = [SourcesFile.read(path) for path in sources]
    files = [file for content in shown for number in content.numbers for file in number.runs]
    results = "".join(section(content, trail) for content in shown)
    jobs = "".join(job(record, trail) for record in reached(files, trail))
    head = f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Lineage</title>\n<style>{STYLE}</style>'
    introduction = f"<h1>Where every number comes from</h1>\n<p>{INTRODUCTION}</p>"
    write_text(out, f"{head}\n{introduction}\n{results}<h2>Jobs</h2>\n{jobs}</html>\n")


def section(content: SourcesFile, trail: Trail) -> str:
    """Return the section on one figure or table."""
    name = escape(content.result)
    rows = "".join(row(number, trail) for number in content.numbers)
    head = "<tr><th>Of</th><th>Values</th><th>Computed</th><th>From</th></tr>"
    return f'<h2 id="{name}">{name}</h2>\n<table>\n{head}\n{rows}</table>\n'


def row(number: Shown, trail: Trail) -> str:
    """Return the table row of numbers that come from the same runs."""
    values = "<br>".join(f"{escape(metric)}: {escape(format_value(value))}" for metric, value in number.values.items())
    origins = "<br>".join(f"{link(file, trail)} {runs(some)}" for file, some in number.runs.items())
    cells = (escape(described(number)), values, escape(number.how), origins)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def runs(pairs: Sequence[Sequence[int]]) -> str:
    """Describe runs by m and seed."""
    by_size = groupby(pairs, key=lambda pair: pair[0])
    return "; ".join(f"m = {m}, seed {', '.join(str(seed) for _, seed in some)}" for m, some in by_size)


def link(path: str, trail: Trail) -> str:
    """Return a file's name, linked to the job that made it if there is one."""
    record = maker(path, trail)
    code = f"<code>{escape(path)}</code>"
    return f'<a href="#{escape(record.name)}">{code}</a>' if record else code


def job(record: Record, trail: Trail) -> str:
    """Return the section on one job."""
    lines = [*map(escape, lasting(record)), f"code of {len(record.code)} modules"]
    for file in (*record.outputs, *record.inputs):
        read = isinstance(file, Input)
        name = link(file.path, trail) if read else f"<code>{escape(file.path)}</code>"
        lines.append(f"{'read' if read else 'made'} {name} (<code>{file.sha256[:16]}…</code>)")
    items = "".join(f"<li>{line}</li>\n" for line in lines)
    return f'<h3 id="{escape(record.name)}">{escape(record.name)}</h3>\n<ul>\n{items}</ul>\n'
