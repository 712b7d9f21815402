"""The explorer as one file: its content, its script, and the script of Vega-Lite, with no address outside."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from malmen.figures.explorer.charts import Bundle, chart, looks
from malmen.figures.explorer.content import SUCCESSES, Content, collect
from malmen.figures.explorer.licences import LICENCES
from malmen.figures.explorer.script import SCRIPT, STYLE
from malmen.figures.failure_table import KINDS
from malmen.figures.index import INTRODUCTION, LINEAGE
from malmen.figures.scaling import PANELS
from malmen.results.sources import SUFFIX, SourcesFile
from malmen.runtime.answers_table import TABLE_SCRIPT, TABLE_STYLE
from malmen.runtime.files import beside, write_text
from malmen.runtime.web_page import as_json, banner, web_page

NAMES = dict(zip(KINDS, ("edit", "rephrased", "unrelated"), strict=True))
"""How the page calls the prompts of a tuple."""
SHOW = {
    "all": "all tuples",
    "failed": "edit failed: its prompt or the rephrased one is wrong after it",
    "spoiled": "unrelated answer spoiled: right before, wrong after",
    "right": "all three answers right after the edit",
}
"""The tuples that can be chosen."""
HOW_TO_READ = (
    "Pick a model, an editor, a number of edits m and a seed. The curves are means over seeds with one standard "
    "deviation to both sides; the grey dotted line is the model before editing. Each number leads to its runs."
)
ABOUT_ANSWERS = (
    "An answer is read under teacher forcing: each token is the most probable one after the right tokens before it. "
    "Wrong tokens are bold and underlined; ✓ and ✗ say whether an answer is right as a whole. The tuples are the first "
    "of the split, and every run keeps the same; each is shown after the edit of its own group of m."
)


@dataclass(frozen=True)
class Explored:
    """The run of the workflow that is looked through.

    Attributes:
        run: its name.
        note: how its setting differs from the paper's; empty if it does not.
        models: the printed name of the data set of each model, in order.
        metrics: all its metrics files.
        answers: its answers files.
    """

    run: str
    note: str
    models: Mapping[str, str]
    metrics: Sequence[Path]
    answers: Sequence[Path]


def write_explorer(explored: Explored, out: Path) -> None:
    """Write the page, and beside it the sources of its numbers.

    Raises:
        UserError: if a file of results is missing or malformed.
    """
    content = collect(explored.metrics, explored.answers, explored.models)
    write_text(out, page(explored, content, ""))
    stem = out.with_suffix("")
    SourcesFile.of_numbers(stem.name, content.shown).write(beside(stem, SUFFIX))


def write_copy(explored: Explored, results: Path, out: Path) -> None:
    """Write the page alone, to any place; it links to the lineage in the folder of results.

    Raises:
        UserError: if a file of results is missing or malformed.
    """
    content = collect(explored.metrics, explored.answers, explored.models)
    folder = Path(os.path.relpath(results.resolve(), out.resolve().parent)).as_posix()
    write_text(out, page(explored, content, f"{folder}/"))


def page(explored: Explored, content: Content, folder: str) -> str:
    """Return the page; ``folder`` leads from it to the pages beside it."""
    looked, bundle = looks(content.editors), Bundle.installed()
    shown = {
        "models": content.models,
        "editors": [{"key": key, "label": content.editors[key], **asdict(look)} for key, look in looked.items()],
        **{name: getattr(content, name) for name in ("points", "before", "runs", "asked")},
        "chart": chart(looked),
        "names": list(NAMES.values()),
        "lineage": f"{folder}{LINEAGE}",
    }
    title = f"Explore the run “{explored.run}”"
    body = [
        '<a class="skip" href="#facts">Skip to the answers</a>',
        f"<header>\n<h1>{escape(title)}</h1>",
        banner(explored.note),
        f"<p>{escape(INTRODUCTION)}</p>\n<p>{escape(HOW_TO_READ)}",
        f'<a href="{folder}index.html">All results on one page</a>.</p>',
        "<noscript><p><strong>This page needs JavaScript; the other pages do without it.</strong></p></noscript>",
        "</header>\n<main>",
        *controls(),
        *curves(),
        *facts(),
        "</main>",
        *licences(bundle),
        f'<script type="application/json" id="content">{as_json(shown)}</script>',
        f"<script>(() => {{{bundle.script}\n}})();</script>",  # its names are its own
    ]
    return web_page(title, body, TABLE_SCRIPT + SCRIPT, TABLE_STYLE + STYLE)


def controls() -> Iterator[str]:
    """Yield the fields in which a run is picked."""
    yield '<form id="pick" aria-label="The run to look at">'
    for name, label in (("model", "Model"), ("editor", "Editor"), ("m", "Edits m"), ("seed", "Seed")):
        yield f'<label>{label} <select id="{name}"></select></label>'
    yield "</form>"


def curves() -> Iterator[str]:
    """Yield the part with curves and numbers."""
    yield '<section id="curves">\n<h2>Curves</h2>\n<div class="charts">'
    for metric in SUCCESSES:
        title = PANELS[metric]
        yield f'<figure><figcaption>{title}</figcaption><div id="chart-{metric}" class="chart"></div></figure>'
    yield '</div>\n<div class="wide" tabindex="0" role="region" aria-label="Numbers"><table id="numbers"></table></div>'
    yield "</section>"


def facts() -> Iterator[str]:
    """Yield the part with answers."""
    options = "".join(f'<option value="{key}">{escape(label)}</option>' for key, label in SHOW.items())
    yield '<section id="facts">\n<h2>Answers</h2>'
    yield f'<p id="about"></p>\n<details><summary>How to read the answers</summary><p>{ABOUT_ANSWERS}</p></details>'
    yield '<form id="filter" aria-label="The tuples to show">'
    yield f'<label>Show <select id="show">{options}</select></label>'
    yield '<label>Search <input type="search" id="find" placeholder="words of prompts or answers"/></label>'
    yield '<span id="hits" role="status"></span>\n</form>'
    yield '<table id="answers" class="prose"></table>\n</section>'


def licences(bundle: Bundle) -> Iterator[str]:
    """Yield what the page holds that is not of this project."""
    parts = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield f"<footer>\n<details><summary>Drawn by {parts}; licences</summary>"
    yield f"<p>Their script in this page has the SHA-256 <code>{bundle.sha256}</code>.</p>"
    yield f"<pre>{escape(LICENCES.strip())}</pre></details>\n</footer>"
