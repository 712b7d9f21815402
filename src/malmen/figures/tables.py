"""Rendering a table as Markdown (for GitHub), LaTeX (with ``booktabs``) and HTML from one description."""

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from malmen.results.sources import SUFFIX, Shown, SourcesFile
from malmen.runtime.files import beside, write_text
from malmen.runtime.web_page import web_page

DASH = "–"
"""Printed for a missing number."""


@dataclass(frozen=True)
class Span:
    """A part of a text, marked (bold and underlined) or not."""

    text: str
    marked: bool = False


Text = str | tuple[Span, ...]
"""The text of a cell: plain, or in parts, some of them marked."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its format, and the number of its footnote (from 1) or None."""

    text: Text
    bold: bool = False
    italic: bool = False
    note: int | None = None


@dataclass(frozen=True)
class ColumnGroup:
    """Neighbouring columns under a common head of one or more lines."""

    head: tuple[str, ...]
    columns: tuple[str, ...]


Line = tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A table: the heads of all groups have the same number of lines; a line is a label and a cell for each column.

    ``blocks`` are lines that belong together; ``notes`` are the footnotes, ``remark`` follows them. Cells hold numbers
    or, if ``prose``, left-aligned text with line breaks.
    """

    caption: str
    corner: str
    groups: tuple[ColumnGroup, ...]
    blocks: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...]
    remark: str
    prose: bool = False


def render(text: Text, escape: Callable[[str], str], mark: Callable[[str], str]) -> str:
    """Render a text: ``escape`` applies to all of it, ``mark`` to its marked parts."""
    if isinstance(text, str):
        return escape(text)
    return "".join(mark(escape(span.text)) if span.marked else escape(span.text) for span in text)


def write_grid(grid: Grid, stem: Path, shown: Iterable[Shown]) -> None:
    """Write a table as ``stem.md``, ``.html`` and ``.tex``; the name of ``stem`` is its label in LaTeX.

    ``stem.sources.json`` and comments in HTML and LaTeX hold the sources of the numbers ``shown``.
    """
    sources = write_with_sources(to_markdown(grid), to_html(grid), stem, shown)
    write_text(beside(stem, ".tex"), to_latex(grid, f"tab:{stem.name}") + f"% Sources: {sources}\n")


def write_with_sources(markdown: str, page: str, stem: Path, shown: Iterable[Shown]) -> str:
    """Write a page as Markdown and HTML, and the sources of its numbers; return the sources in one line."""
    sources = SourcesFile.of_numbers(stem.name, shown)
    text = sources.in_one_line()
    write_text(beside(stem, ".md"), markdown)
    write_text(beside(stem, ".html"), f"{page}<!-- Sources: {text} -->\n")
    sources.write(beside(stem, SUFFIX))
    return text


def to_markdown(grid: Grid) -> str:
    """Return the table in GitHub's Markdown: caption, table, footnotes and remark."""
    columns = []
    for group in grid.groups:  # The first column has the group's head, because Markdown cannot span columns.
        first, *others = map(markdown_text, group.columns)
        columns += ["<br>".join([*map(markdown_text, group.head), first]), *others]
    lines = [[_markdown_cell(cell) for cell in line] for block in grid.blocks for line in block]
    rule = [":--", *[":--" if grid.prose else "--:"] * len(columns)]
    table = [[markdown_text(grid.corner), *columns], rule, *lines]
    notes = [f"<sup>{number}</sup> {markdown_text(note)}" for number, note in enumerate(grid.notes, start=1)]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    parts = [markdown_text(grid.caption), rows, *notes, markdown_text(grid.remark)]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_text(text: str) -> str:
    """Escape ``text`` for one line of Markdown."""
    return re.sub(r"([\\`*_|\[\]$~<>&])", r"\\\1", re.sub(r"\s", " ", text))


def _markdown_cell(cell: Cell) -> str:
    around = ("**" * cell.bold + "*" * cell.italic) if cell.text else ""
    note = f"<sup>{cell.note}</sup>" if cell.note else ""
    return around + render(cell.text, markdown_text, lambda text: f"<b><ins>{text}</ins></b>") + around + note


def to_html(grid: Grid) -> str:
    """Return the table as a web page of its own."""
    return web_page(grid.caption, [f"<main>\n{html_table(grid)}\n</main>"])


def html_table(grid: Grid) -> str:
    """Return the table with footnotes and remark as a part of a web page."""
    widths = [len(group.columns) for group in grid.groups]
    levels = zip(*(group.head for group in grid.groups), strict=True)
    spans = [zip(widths, texts, strict=True) for texts in levels]
    heads = ["<th></th>" + "".join(f'<th colspan="{n}">{_html(text)}</th>' for n, text in span) for span in spans]
    columns = [grid.corner, *(column for group in grid.groups for column in group.columns)]
    rows = [*heads, "".join(f"<th>{_html(column)}</th>" for column in columns)]
    blocks = [[f"<tr>{''.join(map(_html_cell, line))}</tr>" for line in block] for block in grid.blocks]
    notes = [f"<sup>{number}</sup> {_html(note)}" for number, note in enumerate(grid.notes, start=1)]
    kind = ' class="prose"' if grid.prose else ""
    caption = [f"<caption>{_html(grid.caption)}</caption>"] if grid.caption else []
    return "\n".join(
        [
            f'<div class="wide">\n<table{kind}>',
            *caption,
            *["<thead>", *(f"<tr>{row}</tr>" for row in rows), "</thead>"],
            *(line for block in blocks for line in ("<tbody>", *block, "</tbody>")),
            "</table>\n</div>",
            *(f"<p>{text}</p>" for text in (*notes, _html(grid.remark)) if text),
        ]
    )


def _html(text: str) -> str:
    return html.escape(re.sub(r"\s", " ", text))


def _html_cell(cell: Cell) -> str:
    text = render(cell.text, _html, lambda text: f"<b><u>{text}</u></b>")
    text = f"<b>{text}</b>" if cell.bold else text
    text = f"<i>{text}</i>" if cell.italic else text
    return f"<td>{text}{f'<sup>{cell.note}</sup>' if cell.note else ''}</td>"


def to_latex(grid: Grid, label: str) -> str:
    r"""Return the table as a LaTeX ``table`` named ``label``; the document needs ``\usepackage{booktabs}`` alone."""
    widths = [len(group.columns) for group in grid.groups]
    columns = [column for group in grid.groups for column in group.columns]
    # Columns of prose share the width that the first column leaves.
    column = rf"p{{{0.8 / len(columns):.3f}\linewidth}}" if grid.prose else "r"
    lines = []
    for block in grid.blocks:
        rows = [list(map(_latex_cell, line)) for line in block]
        prose = [" & ".join([row[0], *(rf"\raggedright {cell}" for cell in row[1:])]) for row in rows]
        lines.append([rf"{row} \tabularnewline" for row in prose] if grid.prose else list(map(_latex_row, rows)))
    notes = [rf"\textsuperscript{{{number}}}~{_latex(note)}" for number, note in enumerate(grid.notes, start=1)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_latex(grid.caption)}}}",
            rf"\label{{{label}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{l{column * len(columns)}}}",
            r"\toprule",
            *_latex_heads(grid.groups, widths),
            _latex_row([_latex(text) for text in (grid.corner, *columns)]),
            r"\midrule",
            "\n\\addlinespace\n".join(map("\n".join, lines)),
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            "\\par\n".join([*notes, _latex(grid.remark)]),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _latex_heads(groups: tuple[ColumnGroup, ...], widths: list[int]) -> list[str]:
    """Return the lines of the groups' heads, with the rules under them."""
    heads: list[str] = []
    for texts in zip(*(group.head for group in groups), strict=True):
        spans = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(text)}}}" for width, text in zip(widths, texts, strict=True)]
        heads.append(_latex_row(["", *spans]))
    ends = [1 + sum(widths[: index + 1]) for index in range(len(widths))]
    rules = [rf"\cmidrule(lr){{{end - width + 1}-{end}}}" for width, end in zip(widths, ends, strict=True)]
    return [*heads, "".join(rules)] if heads else []


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = render(cell.text, _latex, lambda text: rf"\underline{{\textbf{{{text}}}}}")
    text = rf"\textbf{{{text}}}" if cell.bold else text
    text = rf"\textit{{{text}}}" if cell.italic else text
    return text + (rf"\rlap{{\textsuperscript{{{cell.note}}}}}" if cell.note else "")


_LATEX = {
    **{character: rf"\{character}" for character in "{}$&#%_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # at the start of a line, LaTeX would read it as the argument of the \\ before
    "]": "{]}",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "␣": r"\textvisiblespace{}",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
}


def _latex(text: str) -> str:
    """Escape ``text`` for LaTeX; unusual characters become their numbers."""
    return "".join(_latex_character(character) for character in re.sub(r"\s", " ", text))


def _latex_character(character: str) -> str:
    known = character.isascii() or "À" <= character <= "ÿ"
    return _LATEX.get(
        character, character if known and character.isprintable() else rf"\texttt{{U+{ord(character):04X}}}"
    )
