import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from malmen.figures.tables import Cell, ColumnGroup, Grid, Span, to_html, to_latex, to_markdown

AWKWARD = r"a|b_c*d & 50% of $x^2 {y} <z> ~ #1 \n [q] λ – ∑ é"


def grid(label: str) -> Grid:
    return Grid(
        caption=f"Caption {label}",
        corner="Variant",
        groups=(ColumnGroup(("FEVER", "BERT"), ("ES", "GS")), ColumnGroup(("zsRE", "GPT-2"), ("LS",))),
        blocks=(
            ((Cell(label), Cell("1.0", bold=True), Cell("–", note=1), Cell("")),),
            ((Cell("[second]"), Cell("2.0", italic=True), Cell("3.0", bold=True, italic=True), Cell("4")),),
        ),
        notes=(f"Note {label}",),
        remark="Remark.",
    )


def test_markdown() -> None:
    assert to_markdown(grid("a_b|c")) == (
        "Caption a\\_b\\|c\n\n"
        "| Variant | FEVER<br>BERT<br>ES | GS | zsRE<br>GPT-2<br>LS |\n"
        "| :-- | --: | --: | --: |\n"
        "| a\\_b\\|c | **1.0** | –<sup>1</sup> |  |\n"
        "| \\[second\\] | *2.0* | ***3.0*** | 4 |\n\n"
        "<sup>1</sup> Note a\\_b\\|c\n\n"
        "Remark.\n"
    )


def test_html_is_a_page_whose_rows_are_as_long_as_its_heads() -> None:
    page = to_html(grid(AWKWARD))
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE html>|<meta[^>]*>", "", page))
    lengths = [sum(int(cell.get("colspan", 1)) for cell in row) for row in root.iter("tr")]
    assert lengths == [4] * 5
    assert ["".join(cell.itertext()) for cell in list(root.iter("tr"))[3]] == [AWKWARD, "1.0", "–1", ""]
    assert "<td><i><b>3.0</b></i></td>" in page
    assert f"Note {AWKWARD}" in "".join(root.itertext())


def test_latex_heads_rows_and_escapes() -> None:
    lines = to_latex(grid("50% & a_b"), "tab:x").splitlines()
    assert r"\begin{tabular}{lrrr}" in lines
    assert r" & \multicolumn{2}{c}{FEVER} & \multicolumn{1}{c}{zsRE} \\" in lines
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in lines
    assert r"50\% \& a\_b & \textbf{1.0} & --\rlap{\textsuperscript{1}} &  \\" in lines
    assert r"{[}second{]} & \textit{2.0} & \textit{\textbf{3.0}} & 4 \\" in lines


def test_a_note_is_one_line_in_all_formats() -> None:
    awkward = grid("two\nlines")
    for text in (to_markdown(awkward), to_html(awkward), to_latex(awkward, "tab:x")):
        assert "Note two lines" in text


def prose(*spans: Span) -> Grid:
    return Grid(
        "Caption",
        "Kind",
        (ColumnGroup((), ("Prompt", "Answer")),),
        (((Cell("a"), Cell("Who?"), Cell(spans)),),),
        (),
        "",
        True,
    )


def test_marked_spans_are_escaped_and_keep_their_spaces() -> None:
    table = prose(Span("5"), Span("_%", marked=True), Span(" <c>"))
    assert r"| a | Who? | 5<b><ins>\_%</ins></b> \<c\> |" in to_markdown(table)
    assert "<td>5<b><u>_%</u></b> &lt;c&gt;</td>" in to_html(table)
    latex = to_latex(table, "tab:x")
    assert (
        r"a & \raggedright Who? & \raggedright 5\underline{\textbf{\_\%}} \textless{}c\textgreater{} \tabularnewline"
        in latex
    )


def test_a_table_of_prose_is_flush_left_and_needs_no_heads() -> None:
    table = prose(Span("x"))
    assert to_markdown(table).splitlines()[2:4] == ["| Kind | Prompt | Answer |", "| :-- | :-- | :-- |"]
    assert '<table class="prose">' in to_html(table) and "colspan" not in to_html(table).partition("<table")[2]
    latex = to_latex(table, "tab:x")
    assert r"\begin{tabular}{lp{0.400\linewidth}p{0.400\linewidth}}" in latex and "cmidrule" not in latex


def test_what_is_empty_is_not_set_in_italics() -> None:
    table = prose()
    blank = Grid("", "", table.groups, (((Cell("a"), Cell("", italic=True), Cell("", bold=True)),),), (), "")
    assert "| a |  |  |" in to_markdown(blank)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("table", [grid(AWKWARD), prose(Span(AWKWARD), Span(AWKWARD, marked=True), Span(" ✗ ✓ ␣"))])
def test_latex_compiles_whatever_the_labels_hold(table: Grid, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(to_latex(table, "tab:x"), encoding="utf-8")
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
