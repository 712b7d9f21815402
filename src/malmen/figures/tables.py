"""Printing a table as Markdown (for GitHub), LaTeX (with ``booktabs``) and HTML from one description."""

import html
import re
from dataclasses import dataclass

DASH = "–"
"""What stands where there is no number."""


@dataclass(frozen=True)
class Entry:
    """One cell: its text, how it is set, and the number of its footnote if it has one (from 1)."""

    text: str
    bold: bool = False
    italic: bool = False
    note: int | None = None


@dataclass(frozen=True)
class Group:
    """Neighbouring columns under a common head of one or more lines."""

    head: tuple[str, ...]
    columns: tuple[str, ...]


Line = tuple[Entry, ...]


@dataclass(frozen=True)
class Grid:
    """A table as it is printed: all groups have heads of equally many lines, a line is a label and all columns' cells.

    ``blocks`` are lines that belong together; ``notes`` are the footnotes, ``remark`` follows them.
    """

    caption: str
    corner: str
    groups: tuple[Group, ...]
    blocks: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...]
    remark: str


def to_markdown(grid: Grid) -> str:
    """Return the table in GitHub's Markdown, its caption first, footnotes and remark after it."""
    columns = ["<br>".join(map(_markdown, (*group.head, column))) for group in grid.groups for column in group.columns]
    lines = [[_markdown_entry(entry) for entry in line] for block in grid.blocks for line in block]
    table = [[_markdown(grid.corner), *columns], [":--", *["--:"] * len(columns)], *lines]
    notes = [f"<sup>{number}</sup> {_markdown(note)}" for number, note in enumerate(grid.notes, start=1)]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return "\n\n".join([_markdown(grid.caption), rows, *notes, _markdown(grid.remark)]) + "\n"


def _markdown(text: str) -> str:
    """Return one line of Markdown that shows ``text`` as it is."""
    return re.sub(r"([\\`*_|\[\]$~<>&])", r"\\\1", " ".join(text.split()))


def _markdown_entry(entry: Entry) -> str:
    around = "**" * entry.bold + "*" * entry.italic
    mark = f"<sup>{entry.note}</sup>" if entry.note else ""
    return around + _markdown(entry.text) + around + mark


def to_html(grid: Grid) -> str:
    """Return the table as a web page of its own."""
    widths = [len(group.columns) for group in grid.groups]
    levels = zip(*(group.head for group in grid.groups), strict=True)
    heads = ["<th></th>" + "".join(map(_html_head, texts, widths)) for texts in levels]
    columns = [grid.corner, *(column for group in grid.groups for column in group.columns)]
    rows = [*heads, "".join(f"<th>{_html(column)}</th>" for column in columns)]
    blocks = [[f"<tr>{''.join(map(_html_entry, line))}</tr>" for line in block] for block in grid.blocks]
    notes = [f"<sup>{number}</sup> {_html(note)}" for number, note in enumerate(grid.notes, start=1)]
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{_html(grid.caption)}</title>',
            f"<style>{_STYLE}</style>\n<table>\n<caption>{_html(grid.caption)}</caption>",
            *["<thead>", *(f"<tr>{row}</tr>" for row in rows), "</thead>"],
            *(line for block in blocks for line in ("<tbody>", *block, "</tbody>")),
            "</table>",
            *(f"<p>{text}</p>" for text in (*notes, _html(grid.remark))),
            "</html>\n",
        ]
    )


_STYLE = (
    "body{font:14px sans-serif} table{border-collapse:collapse} caption{text-align:left;padding-bottom:.6em}"
    "th,td{padding:.15em .7em;text-align:right} th:first-child,td:first-child{text-align:left}"
    "th[colspan]{text-align:center} thead tr:last-child th,tbody tr:last-child td{border-bottom:1px solid #999}"
)


def _html(text: str) -> str:
    return html.escape(" ".join(text.split()))


def _html_head(text: str, width: int) -> str:
    return f'<th colspan="{width}">{_html(text)}</th>'


def _html_entry(entry: Entry) -> str:
    text = _html(entry.text)
    text = f"<b>{text}</b>" if entry.bold else text
    text = f"<i>{text}</i>" if entry.italic else text
    return f"<td>{text}{f'<sup>{entry.note}</sup>' if entry.note else ''}</td>"


def to_latex(grid: Grid, label: str) -> str:
    r"""Return the table as a LaTeX ``table`` named ``label``; the document needs ``\usepackage{booktabs}`` alone."""
    widths = [len(group.columns) for group in grid.groups]
    columns = [column for group in grid.groups for column in group.columns]
    blocks = ["\n".join(_latex_row([_latex_entry(entry) for entry in line]) for line in block) for block in grid.blocks]
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
            rf"\begin{{tabular}}{{l{''.join('r' * width for width in widths)}}}",
            r"\toprule",
            *_latex_heads(grid.groups, widths),
            _latex_row([_latex(text) for text in (grid.corner, *columns)]),
            r"\midrule",
            "\n\\addlinespace\n".join(blocks),
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


def _latex_heads(groups: tuple[Group, ...], widths: list[int]) -> list[str]:
    """Return the lines of the groups' heads and the rules under them."""
    heads = []
    for texts in zip(*(group.head for group in groups), strict=True):
        spans = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(text)}}}" for width, text in zip(widths, texts, strict=True)]
        heads.append(_latex_row(["", *spans]))
    ends = [1 + sum(widths[: index + 1]) for index in range(len(widths))]
    rules = [rf"\cmidrule(lr){{{end - width + 1}-{end}}}" for width, end in zip(widths, ends, strict=True)]
    return [*heads, "".join(rules)]


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_entry(entry: Entry) -> str:
    text = _latex(entry.text)
    text = rf"\textbf{{{text}}}" if entry.bold else text
    text = rf"\textit{{{text}}}" if entry.italic else text
    return text + (rf"\rlap{{\textsuperscript{{{entry.note}}}}}" if entry.note else "")


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
    "[": "{[}",  # at the start of a line it would be the argument of the \\ before
    "]": "{]}",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
}


def _latex(text: str) -> str:
    """Return LaTeX that shows ``text`` as it is; a character that LaTeX may lack is given by its number."""
    return "".join(_latex_character(character) for character in " ".join(text.split()))


def _latex_character(character: str) -> str:
    known = character.isascii() or "À" <= character <= "ÿ"
    return _LATEX.get(
        character, character if known and character.isprintable() else rf"\texttt{{U+{ord(character):04X}}}"
    )
