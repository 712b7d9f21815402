"""The lineage page of the report: it links each figure and table to its runs, and the runs to the raw data.

It is folded by result and model, and by model the jobs; a search field opens what it finds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from malmen.audit.lineage import described, format_value, made, maker, reached
from malmen.audit.trail import Trail
from malmen.provenance.records import Input, Record
from malmen.results.sources import Shown, SourcesFile, anchor
from malmen.runtime.files import write_text
from malmen.runtime.text import counted, printed_name
from malmen.runtime.web_page import banner, web_page

INTRODUCTION = (
    "What each figure and table shows, how it was computed, and from which runs. Each file links to the job that "
    "made it, and each job to its inputs, back to raw data. Hashes are SHA-256, checked by <code>malmen audit</code>."
)
SEARCH = (
    '<p><label>Search: <input type="search" id="search" placeholder="an editor, a model, a file, a hash"/></label> '
    '<span id="hits" role="status"></span></p>'
)
SCRIPT = """
const rows = [...document.querySelectorAll("tbody tr, section li")];
const folds = [...document.querySelectorAll("details")];
const field = document.getElementById("search");
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let hits = 0;
  for (const row of rows) {
    const text = (row.closest("details").dataset.name + " " + row.textContent).toLowerCase();
    const found = words.every(word => text.includes(word));
    row.hidden = !found;
    hits += found && words.length > 0;
  }
  for (const fold of folds) {
    const shown = fold.querySelector("tbody tr:not([hidden]), li:not([hidden])") !== null;
    fold.hidden = !shown;
    fold.open = words.length > 0 && shown;
  }
  document.getElementById("hits").textContent = words.length ? hits + " lines" : "";
});
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) { if (target.tagName === "DETAILS") target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", unfold);
unfold();
"""


def write_lineage(run: str, sources: Sequence[Path], note: str, out: Path) -> None:
    """Write the lineage page.

    Args:
        run: the name of the run.
        sources: the sources files of all figures and tables, which map numbers to runs.
        note: how the setting differs from the paper's; empty if it does not.
        out: the page.

    Raises:
        UserError: if a record has been changed.
    """
    trail = Trail(run)
    shown = [SourcesFile.read(path) for path in sources]
    files = [file for content in shown for number in content.numbers for file in number.runs]
    jobs = reached(files, trail)
    body = [
        "<header>\n<h1>Where every number comes from</h1>",
        banner(note),
        f"<p>Run “{escape(run)}”. {INTRODUCTION}</p>\n{made_at(jobs)}{SEARCH}\n</header>",
        *contents(shown, jobs),
        "<main>",
        *(line for content in shown for line in result(content, trail)),
        f"<h2>Jobs ({len(jobs)})</h2>",
        *(line for model, some in by_model(jobs) for line in jobs_of(model, some, trail)),
        "</main>",
    ]
    write_text(out, web_page("Where every number comes from", body, SCRIPT))


def made_at(jobs: Sequence[Record]) -> str:
    """Return the paragraph on the commits at which jobs ran, and on uncommitted changes of code or configuration."""
    commits = Counter((job.circumstances.commit or "")[:12] or "an unknown commit" for job in jobs)
    said = ", ".join(f"{commit} ({counted(number, 'job')})" for commit, number in commits.most_common())
    dirty = sum(bool(job.circumstances.uncommitted) for job in jobs)
    changes = f" {counted(dirty, 'job')} ran with uncommitted changes." if dirty else ""
    since = "What has changed since, <code>malmen audit</code> says."
    return f"<p>Made at {said}.{changes} {since}</p>\n" if jobs else ""


def contents(shown: Sequence[SourcesFile], jobs: Sequence[Record]) -> Iterator[str]:
    """Yield the table of contents."""
    yield '<nav aria-label="Contents">\n<ul>'
    for content in shown:
        yield f'<li><a href="#{escape(content.result)}">{escape(printed_name(content.result))}</a></li>'
    for model, some in by_model(jobs):
        yield f'<li><a href="#jobs.{escape(model)}">Jobs: {escape(model)} ({len(some)})</a></li>'
    yield "</ul>\n</nav>"


def result(content: SourcesFile, trail: Trail) -> Iterator[str]:
    """Yield the part on one figure or table, folded, and folded by model if there are several."""
    name = printed_name(content.result)
    numbered = list(enumerate(content.numbers))
    models = dict.fromkeys(model_of(number) for number in content.numbers)
    yield fold(content.result, name, f"{name} ({counted(len(numbered), 'line')})", "h2")
    for model in models:
        rows = [
            row(number, anchor(content.result, place), trail) for place, number in numbered if model_of(number) == model
        ]
        if len(models) > 1:
            yield fold("", f"{name} {model}", f"{model or 'the paper'} ({counted(len(rows), 'line')})", "h3")
        yield '<div class="wide">\n<table class="prose">'
        yield "<thead><tr><th>Of</th><th>Values</th><th>Computed</th><th>From</th></tr></thead>\n<tbody>"
        yield from rows
        yield "</tbody>\n</table>\n</div>"
        if len(models) > 1:
            yield "</details>"
    yield "</details>"


def fold(identity: str, name: str, head: str, level: str) -> str:
    """Return the start of a part that can be folded; ``name`` is found by the search in each of its lines."""
    place = f' id="{escape(identity)}"' if identity else ""
    return f'<details{place} data-name="{escape(name)}">\n<summary><{level}>{escape(head)}</{level}></summary>'


def model_of(number: Shown) -> str:
    """Return the model of a number: empty if it is the paper's, or the figure is of a single model."""
    if number.of.get("source") == "paper":
        return ""
    return str(number.of.get("model_label") or number.of.get("model") or "")


def row(number: Shown, identity: str, trail: Trail) -> str:
    """Return the table row of numbers that come from the same runs."""
    values = "<br/>".join(f"{escape(metric)}: {escape(format_value(value))}" for metric, value in number.values.items())
    origins = "<br/>".join(f"{link(file, trail)} {runs(some)}" for file, some in number.runs.items())
    cells = (escape(described(number)), values, escape(number.how), origins)
    return f'<tr id="{escape(identity)}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def runs(pairs: Sequence[Sequence[int]]) -> str:
    """Describe runs by m and seed."""
    by_size = groupby(pairs, key=lambda pair: pair[0])
    return "; ".join(f"m = {m}, seed {', '.join(str(seed) for _, seed in some)}" for m, some in by_size)


def link(path: str, trail: Trail) -> str:
    """Return a file's name, linked to the job that made it if there is one."""
    record = maker(path, trail)
    code = f"<code>{escape(path)}</code>"
    return f'<a href="#{escape(record.name)}">{code}</a>' if record else code


def by_model(jobs: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """Return jobs by the model that they made or used, "data" for the others, in the order of their names."""
    found: dict[str, list[Record]] = {}
    for record in sorted(jobs, key=lambda one: one.name):
        found.setdefault(record.model.name if record.model else "data", []).append(record)
    return sorted(found.items())


def jobs_of(model: str, jobs: Sequence[Record], trail: Trail) -> Iterator[str]:
    """Yield the folded part on the jobs of a model."""
    yield fold(f"jobs.{model}", model, f"{model} ({counted(len(jobs), 'job')})", "h3")
    for record in jobs:
        yield f'<section id="{escape(record.name)}">\n<h4>{escape(readable(record))}</h4>\n<ul>'
        yield from (f"<li>{line}</li>" for line in [*map(escape, made(record)), *files_of(record, trail)])
        yield "</ul>\n</section>"
    yield "</details>"


def readable(record: Record) -> str:
    """Return a job's name in words: "Train editor: bert, malmen, m = 16, 32, seeds 0, 1"."""
    words = {"n_edits": "m = ", "seeds": "seeds ", "seed": "seed "}
    parts = [
        f"{words[name]}{value.replace('-', ', ')}" if name in words else value
        for name, value in record.wildcards.items()
    ]
    return ": ".join(filter(None, [printed_name(record.rule), ", ".join(parts)]))


def files_of(record: Record, trail: Trail) -> Iterator[str]:
    """Yield the files that a job made and read."""
    for file in (*record.outputs, *record.inputs):
        read = isinstance(file, Input)
        name = link(file.path, trail) if read else f"<code>{escape(file.path)}</code>"
        yield f"{'read' if read else 'made'} {name} (<code>{file.sha256[:16]}…</code>)"
