"""The page with all results of a run."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cost_files import priced
from metrics_files import group, ok, write_metrics
from rounds_files import in_rounds, write_rounds

from malmen.errors import UserError
from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.after_malmen import collect_rounds, write_after_malmen
from malmen.figures.index import Item, Results, write_index
from malmen.figures.scaling import draw_scaling
from malmen.figures.setting import Setting
from malmen.figures.summary import About, collect, write_summary
from malmen.results.sources import SourcesFile

PUBLISHED = Path(__file__).parents[2] / "data" / "published"
NOTE = "Tiny models, synthetic data: not the paper's setting."


class Page(HTMLParser):
    """What a page refers to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.add(value or "")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """The results of a run of MALMEN and MEND on GPT-2."""
    folder = tmp_path / "results"
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    scores = {"malmen": (0.9, 0.8), "mend": (0.9, 0.2)}
    files = [
        write_metrics(tmp_path, ok(2, group(small)), ok(64, group(large)), editor=editor)
        for editor, (small, large) in scores.items()
    ]
    setting = Setting(NOTE)
    draw_scaling(files, folder / "figures" / "figure5", "Figure 5", None, setting)
    rows = [AblationRow("malmen", "MALMEN", (files[0],))]
    data = {"zsre": "zsRE-like (synthetic)"}
    write_ablation(rows, 64, PUBLISHED / "table1.csv", data, folder / "tables" / "table1", setting)
    about = About("demo", "zsRE-like (synthetic)", setting)
    claims = PUBLISHED / "claims.yaml"
    write_summary(claims, collect(files, [priced(tmp_path, "none", None, [])], [], {}), about, folder / "summary")
    return Results(
        run="demo",
        note=NOTE,
        data="zsRE-like (synthetic)",
        figures=[Item(folder / "figures" / "figure5", "Figure 5: GPT-2 (tiny), zsRE-like (synthetic)")],
        tables=[Item(folder / "tables" / "table1", "Table 1: GPT-2 (tiny), zsRE-like (synthetic)")],
        summary=folder / "summary",
        claims=claims,
    )


def test_all_results_are_on_the_page_and_every_link_leads_somewhere(results: Results) -> None:
    out = results.summary.parent / "index.html"
    write_index(results, out)
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert {"claims", "figure5", "table1"} <= page.anchors
    assert "figures/figure5.png" in page.links and "figures/figure5.pdf" in page.links
    for link in page.links:
        path, _, place = link.partition("#")
        assert not link.startswith(("http", "/", "data:")), link
        if path not in ("", "lineage.html"):
            assert (out.parent / path).is_file(), link
        if not path:
            assert place in page.anchors, link
    assert "<script" not in text and NOTE in text.replace("&#x27;", "'") and "zsRE-like (synthetic)" in text


def test_a_table_that_quotes_real_data_is_named_and_left_out(results: Results) -> None:
    item = results.tables[0]
    for suffix in (".html", ".md", ".csv", ".tex"):  # A clone has none of them.
        item.stem.with_suffix(suffix).unlink()
    out = results.summary.parent / "index.html"
    write_index(replace(results, tables=[replace(item, quotes=True)]), out)
    text = out.read_text(encoding="utf-8")
    assert "<code>tables/table1.html</code>" in text and "lineage.html#table1.0" in Page(text).links
    assert not any(link.startswith("tables/") for link in Page(text).links)


def test_each_number_links_to_its_line_of_the_lineage(results: Results) -> None:
    out = results.summary.parent / "index.html"
    write_index(results, out)
    links = Page(out.read_text(encoding="utf-8")).links
    for item in (*results.figures, *results.tables):
        numbers = SourcesFile.read(item.stem.parent / f"{item.name}.sources.json").numbers
        assert {f"lineage.html#{item.name}.{place}" for place in range(len(numbers))} <= set(links)
    found = SourcesFile.read(results.summary.parent / "summary.sources.json").numbers
    assert {f"lineage.html#summary.{place}" for place in range(len(found))} <= set(links)


def test_the_tally_and_the_tested_claims_come_first(results: Results) -> None:
    out = results.summary.parent / "index.html"
    write_index(results, out)
    text = out.read_text(encoding="utf-8")
    assert re.search(r"<strong>\d+ hold, \d+ do not, \d+ (is|are) not testable\.</strong>", text)
    assert text.index(">holds<") < text.index(">not testable<")


def test_claims_about_rounds_have_a_section_of_their_own(results: Results) -> None:
    folder, claims = results.summary.parent, PUBLISHED / "later_claims.yaml"
    path = write_rounds(folder, "malmen", in_rounds("1x64", 0.9), in_rounds("8x8", 0.3))
    evidence = collect_rounds([path], {"gpt2": "GPT-2 (tiny)"})
    write_after_malmen(claims, evidence, About("demo", "zsRE"), folder / "after_malmen")
    out = folder / "index.html"
    write_index(replace(results, later=folder / "after_malmen", later_claims=claims), out)
    page = Page(out.read_text(encoding="utf-8"))
    assert {"claims", "later-claims"} <= page.anchors
    assert {"#claims", "#later-claims", "lineage.html#after_malmen.0", "lineage.html#summary.0"} <= set(page.links)
    write_summary(PUBLISHED / "claims.yaml", [], About("demo", "zsRE"), results.summary)  # a run in rounds alone
    write_index(replace(results, later=folder / "after_malmen", later_claims=claims), out)
    assert "claims" not in Page(out.read_text(encoding="utf-8")).anchors


@pytest.mark.parametrize("name", ["tables/table1.html", "figures/figure5.png", "summary.csv"])
def test_a_missing_result_is_named(results: Results, name: str) -> None:
    (results.summary.parent / name).unlink()
    with pytest.raises(UserError, match=name):
        write_index(results, results.summary.parent / "index.html")
