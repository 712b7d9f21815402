"""One page with all results of a run: claims with verdicts, figures and tables, each linked to its lineage."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from malmen.errors import UserError
from malmen.figures.after_malmen import HEADING
from malmen.figures.summary import NOT_MEASURED, read_claims, tally
from malmen.results.sources import SUFFIX, Shown, SourcesFile, anchor
from malmen.runtime.files import beside, write_text
from malmen.runtime.web_page import banner, main_part, web_page

LINEAGE = "lineage.html"
"""The page beside it that leads from each number to its runs."""
EXPLORER = "explorer.html"
"""The page beside it on which a reader looks through curves and answers."""
INTRODUCTION = (
    "Massive Editing for Large Language Models via Meta Learning (MALMEN; Tan, Zhang and Fu, ICLR 2024), reproduced. "
    "ES: edits that hold. GS: edits that hold for rephrased prompts. LS: unrelated prompts that keep their answer."
)


@dataclass(frozen=True)
class Item:
    """A figure or table.

    Attributes:
        stem: path of its files without suffix.
        title: its printed name, with models and data.
        quotes: whether it quotes records of a real data set: such text stays in its own files, which are not published.
    """

    stem: Path
    title: str
    quotes: bool = False

    @property
    def name(self) -> str:
        """Its name, which is its anchor on both pages."""
        return self.stem.name


@dataclass(frozen=True)
class Results:
    """The results of a run.

    Attributes:
        run: its name.
        note: how the setting differs from the paper's; empty if it does not.
        data: the printed names of the data sets.
        figures: the figures.
        tables: the tables.
        summary: path of the summary without suffix.
        claims: the paper's claims.
        explorer: whether the page with all curves and answers is beside the index.
        later: path of the page on editing in rounds without suffix; None if the run has none.
        later_claims: the later papers' claims, if there is such a page.
    """

    run: str
    note: str
    data: str
    figures: Sequence[Item]
    tables: Sequence[Item]
    summary: Path
    claims: Path
    explorer: bool = False
    later: Path | None = None
    later_claims: Path | None = None

    @cached_property
    def claims_sections(self) -> list[tuple[str, str, Path, Path]]:
        """The sections of claims: anchor, heading, page without suffix, and file of claims.

        A run that only edits in rounds measures none of the paper's claims, which are then left out.
        """
        papers = ("claims", "The paper's claims", self.summary, self.claims)
        if not (self.later and self.later_claims):
            return [papers]
        measured = (findings(self.summary)["verdict"] != NOT_MEASURED).any()
        return [*([papers] if measured else []), ("later-claims", HEADING, self.later, self.later_claims)]


def write_index(results: Results, out: Path) -> None:
    """Write the page; all that it links to or shows is in the folder of ``out`` or below.

    Raises:
        UserError: if a file of the results is missing or malformed.
    """
    folder = out.parent
    title = f"MALMEN: results of the run “{results.run}”"
    items = [*results.figures, *results.tables]
    body = [
        f'<a class="skip" href="#{results.claims_sections[0][0]}">Skip to the claims</a>',
        f"<header>\n<h1>{escape(title)}</h1>",
        banner(results.note),
        f"<p>{escape(INTRODUCTION)} Data: {escape(results.data)}.</p>\n</header>",
        *contents(items, results),
        "<main>",
        *(line for place in results.claims_sections for line in claims_section(*place)),
        *(line for item in results.figures for line in section(item, figure(item, folder), folder)),
        *(line for item in results.tables for line in section(item, table(item), folder)),
        "</main>",
    ]
    write_text(out, web_page(title, body))


def contents(items: Iterable[Item], results: Results) -> Iterator[str]:
    """Yield the table of contents, with the pages beside this one."""
    yield '<nav aria-label="Contents">\n<ul>'
    yield from (f'<li><a href="#{place}">{head}</a></li>' for place, head, *_ in results.claims_sections)
    yield from (f'<li><a href="#{escape(item.name)}">{escape(item.title)}</a></li>' for item in items)
    if results.explorer:
        yield f'<li><a href="{EXPLORER}">Curves and answers to look through</a></li>'
    yield f'<li><a href="{LINEAGE}">Where every number comes from</a></li>\n</ul>\n</nav>'


def findings(summary: Path) -> pd.DataFrame:
    """Return the findings behind a page of claims; raise :class:`UserError` if they cannot be read."""
    try:
        return pd.read_csv(beside(summary, ".csv"), keep_default_na=False, dtype=str)
    except (OSError, ValueError) as error:
        raise UserError(f"The summary {summary}.csv cannot be read ({error}); run its job again.") from None


def claims_section(place: str, head: str, summary: Path, path: Path) -> Iterator[str]:
    """Yield a table of claims, the tested ones first, each verdict linked to the runs behind it.

    Args:
        place: the anchor of the section.
        head: its heading.
        summary: path of the page of the claims without suffix.
        path: the file of claims.

    Raises:
        UserError: if a file is missing or malformed.
    """
    claims, found = read_claims(path), findings(summary)
    anchors = {
        (str(number.of["id"]), str(number.of["model"])): anchor(summary.name, order)
        for order, number in enumerate(SourcesFile.read(beside(summary, SUFFIX)).numbers)
    }
    tested = set(found[found["verdict"].isin(["holds", "does not hold"])]["id"])
    yield f'<section id="{place}">\n<h2>{head}</h2>'
    yield f"<p><strong>{escape(tally(list(found['verdict'])))}</strong>"
    yield "A claim is measured on each model that has the data; each verdict links to its runs.</p>"
    yield '<div class="wide">\n<table class="prose">\n<thead><tr><th>Claim</th><th>Holds if</th><th>Model</th>'
    yield "<th>Measured</th><th>In this run</th></tr></thead>"
    for claim in sorted(claims, key=lambda one: one.id not in tested):
        yield "<tbody>"
        rows = found[found["id"] == claim.id].to_dict("records")
        for order, row in enumerate(sorted(rows, key=lambda one: one["verdict"] == "not testable")):
            first = (f"{claim.claim} ({claim.section})", claim.holds_if) if order == 0 else ("", "")
            cells = [escape(text) for text in (*first, row["model"], row["measured"])]
            to = anchors.get((claim.id, row["model"]))
            verdict = escape(row["verdict"])
            cells.append(f'<a href="{LINEAGE}#{to}"><b>{verdict}</b></a>' if to else verdict)
            yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        yield "</tbody>"
    yield "</table>\n</div>\n</section>"


def section(item: Item, content: Iterable[str], folder: Path) -> Iterator[str]:
    """Yield the section on a figure or table: its content, its files, and its numbers with links to their runs."""
    suffixes = (".pdf", ".png", ".csv", ".tex", ".md")
    files = [path for suffix in suffixes if (path := beside(item.stem, suffix)).is_file()]
    links = [f'<a href="{relative(path, folder)}">{path.suffix[1:].upper()}</a>' for path in files]
    numbers = SourcesFile.read(beside(item.stem, SUFFIX)).numbers
    yield f'<section id="{escape(item.name)}">\n<h2>{escape(item.title)}</h2>'
    lineage = f'Lineage: <a href="{LINEAGE}#{escape(item.name)}">{escape(item.name)}</a>.'
    if item.quotes:
        page = f"<code>{relative(beside(item.stem, '.html'), folder)}</code>"
        yield f"<p>It quotes records of the data set, so this page leaves it out: see {page} where the run was made."
        yield f"{lineage}</p>"
    else:
        yield from content
        yield f"<p>Files: {', '.join(links)}. {lineage}</p>"
    yield f"<details>\n<summary>The runs behind each of its numbers ({len(numbers)})</summary>\n<ul>"
    for place, number in enumerate(numbers):
        yield f'<li><a href="{LINEAGE}#{anchor(item.name, place)}">{escape(label(number))}</a></li>'
    yield "</ul>\n</details>\n</section>"


def figure(item: Item, folder: Path) -> Iterator[str]:
    """Yield the picture, linked to its PDF."""
    png, pdf = (beside(item.stem, suffix) for suffix in (".png", ".pdf"))
    try:
        width = int.from_bytes(png.read_bytes()[16:20], "big")  # as a PNG starts
    except OSError:
        raise UserError(f"The figure {png} does not exist; run its job again.") from None
    # Pictures for print have twice the pixels of a screen.
    size = f'width="{width // 2}" alt="{escape(item.title)}" loading="lazy"'
    yield f'<figure><a href="{relative(pdf, folder)}"><img src="{relative(png, folder)}" {size}/></a></figure>'


def table(item: Item) -> Iterator[str]:
    """Yield the table as its own page shows it.

    Raises:
        UserError: if the page is missing.
    """
    page = beside(item.stem, ".html")
    try:
        yield main_part(page.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"The table {page} does not exist; run its job again.") from None


def relative(path: Path, folder: Path) -> str:
    """Return the address of a file from a page in a folder."""
    return quote(path.relative_to(folder).as_posix())


def label(number: Shown) -> str:
    """Return what a number is of, and which values it has."""
    of: Mapping[str, str | int] = number.of
    return f"{', '.join(f'{name} {value}' for name, value in of.items())}: {', '.join(number.values)}"
