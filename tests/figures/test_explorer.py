"""The explorer: what it holds of a run's files, and what a reader does with it in a real Chromium."""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, opened
from metrics_files import REASON, diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures.explorer.charts import Bundle
from malmen.figures.explorer.content import collect
from malmen.figures.explorer.page import Explored, write_copy, write_explorer
from malmen.results.answers import AnsweredRun, AnswerPart, Answers, AnswersFile, Asked, AskedPrompt, AskedTuple
from malmen.results.sources import SourcesFile

MODELS = {"gpt2": "zsRE-like (synthetic)", "bert": "FEVER-like (synthetic)"}
NOTE = "Tiny models, synthetic data: not the paper's setting."
RIGHT, WRONG = (
    (AnswerPart(" Ada", True), AnswerPart(" L", True)),
    (AnswerPart(" Ada", True), AnswerPart(" <b>X", False)),
)
N = 6
TUPLES = tuple(
    AskedTuple(
        id=f"t{i}",
        edit=AskedPrompt(prompt=f"Who is number {i}?", target="Ada L", before=WRONG),
        equivalent=AskedPrompt(prompt=f"Say who {i} is </script>", target="Ada L", before=WRONG),
        unrelated=AskedPrompt(prompt=f"What else, {i}?", target="Ada L", before=RIGHT),
    )
    for i in range(N)
)


def answers_of(n_edits: int, seed: int, n_right: int) -> AnsweredRun:
    """Return a run after which the first tuples are right in all three answers, and the others in none."""
    after = (Answers(*(3 * [RIGHT if i < n_right else WRONG])) for i in range(N))
    return AnsweredRun(n_edits=n_edits, seed=seed, answers=tuple(after))


def write_answers(folder: Path, model: str, editor: str, n_right: int) -> Path:
    path = folder / f"{model}-{editor}.answers.json"
    asked = tuple(Asked(seed=seed, tuples=TUPLES) for seed in (0, 1))
    runs = tuple(answers_of(m, seed, n_right) for m in (2, 64) for seed in (0, 1))
    AnswersFile(model=model, editor=editor, asked=asked, runs=runs).write(path)
    return path


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    """Two models and two editors; on one model one seed, a run that diverged, and no answers."""
    folder = tmp_path_factory.mktemp("run")
    metrics = [
        write_metrics(folder, ok(2, group(0.9)), ok(64, group(low + seed / 10)), editor=editor, seed=seed, model=model)
        for model in MODELS
        for editor, low in (("mend", 0.2), ("malmen", 0.5))
        for seed in (0, 1)
        if model == "gpt2" or (editor, seed) == ("malmen", 0)
    ]
    metrics.append(write_metrics(folder, ok(2, group(0.25)), diverged(64), editor="mend", model="bert"))
    answers = [write_answers(folder, "gpt2", editor, n) for editor, n in (("mend", 1), ("malmen", 4))]
    return Explored("demo", NOTE, MODELS, metrics, answers)


@pytest.fixture(scope="module")
def written(explored: Explored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "explorer.html"
    write_explorer(explored, out)
    return out


def content_of(page: Path) -> Any:
    """Return what a page holds for its script."""
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1])


def test_every_number_has_its_runs_among_the_sources(written: Path, explored: Explored) -> None:
    content, numbers = content_of(written), SourcesFile.read(written.with_name("explorer.sources.json")).numbers
    anchors = [one["anchor"] for kind in ("points", "before", "runs") for one in content[kind] if "anchor" in one]
    assert sorted(anchors) == list(range(len(numbers)))
    for point in content["points"]:
        shown = numbers[point["anchor"]]
        assert (shown.of["model"], shown.of["editor"], shown.of["n_edits"]) == tuple(
            point[n] for n in ("model", "editor", "m")
        )
        assert {metric: shown.values[metric] for metric in ("ES", "GS", "LS")} == {
            m: point[m] for m in ("ES", "GS", "LS")
        }
        runs = [run for some in shown.runs.values() for run in some]
        assert runs == [(point["m"], seed) for seed in {"bert": [0], "gpt2": [0, 1]}[point["model"]]]
    (malmen,) = [p for p in content["points"] if (p["model"], p["editor"], p["m"]) == ("gpt2", "malmen", 64)]
    assert malmen["ES"]["mean"] == pytest.approx(0.55) and malmen["ES"]["std"] == pytest.approx(0.1 / 2**0.5)
    for run in (run for run in content["runs"] if "anchor" in run):
        shown = numbers[run["anchor"]]
        assert list(shown.runs) == [str(path) for path in explored.answers if run["editor"] in path.name]
        right = 4 if run["editor"] == "malmen" else 1
        before = {"edit_before": 0, "equivalent_before": 0, "unrelated_before": N}
        assert shown.values == {"tuples": N, **before, **dict.fromkeys(("edit", "equivalent", "unrelated"), right)}


def test_the_page_holds_no_address_and_says_whose_script_it_is(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    own = text.replace(Bundle.installed().script, "")
    addresses = set(re.findall(r'(?:src|href)="([^"#]*)', own))
    assert addresses == {"", "index.html"}
    assert Bundle.installed().sha256 in text and "University of Washington" in text and escape(NOTE) in text


def test_two_pages_are_equal(written: Path, explored: Explored, tmp_path: Path) -> None:
    write_explorer(explored, tmp_path / "explorer.html")
    for name in ("explorer.html", "explorer.sources.json"):
        assert (tmp_path / name).read_bytes() == written.with_name(name).read_bytes()


def test_a_copy_without_answers_keeps_the_places_of_its_numbers(
    written: Path, explored: Explored, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "page.html"
    curves = Explored(explored.run, explored.note, explored.models, explored.metrics, [])
    write_copy(curves, tmp_path / "results" / "demo", copy)
    content, whole = content_of(copy), content_of(written)
    assert content["lineage"] == "../results/demo/lineage.html" and not content["asked"]
    assert (content["points"], content["before"]) == (whole["points"], whole["before"])
    assert not list(tmp_path.rglob("*.sources.json"))


def test_what_editors_were_asked_alike_is_kept_once(explored: Explored) -> None:
    content = collect(explored.metrics, explored.answers, explored.models)
    assert len(content.asked) == 1 and {run["asked"] for run in content.runs if "asked" in run} == {0}
    first = content.runs[[run["model"] for run in content.runs].index("gpt2")]
    assert first["answers"][0][0] == ["Ada L"] and content.asked[0][0]["prompts"][0][2] == ["Ada ", ["<b>X"]]


def test_a_broken_file_of_answers_is_named(explored: Explored, tmp_path: Path) -> None:
    broken = tmp_path / "broken.answers.json"
    broken.write_text("{}")
    with pytest.raises(UserError, match=r"broken\.answers\.json .*answers file"):
        collect(explored.metrics, [broken], explored.models)


# In Chromium


@pytest.fixture(scope="module")
def browsed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with opened(written.as_uri(), tmp_path_factory.mktemp("profile")) as page:
        page.wait("document.querySelectorAll('.chart svg').length === 3")
        yield page


def choose(page: Page, **values: str | int) -> None:
    """Choose in the fields as a reader does."""
    for name, value in values.items():
        page.do(
            f"{{ const f = document.getElementById('{name}'); f.value = '{value}';"
            "f.dispatchEvent(new Event(f.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true})); }"
        )


def text(page: Page, selector: str) -> str:
    return str(page.do(f"document.querySelector({selector!r}).innerText"))


def shown_tuples(page: Page) -> list[str]:
    found: list[str] = page.do("[...document.querySelectorAll('#answers tbody')].map(one => one.dataset.id)")
    return found


def test_the_page_is_alone_and_silent(browsed: Page, written: Path) -> None:
    for model in MODELS:
        choose(browsed, model=model, editor="mend", m=64)
    choose(browsed, model="gpt2", editor="malmen")
    browsed.do("new Promise(resolve => setTimeout(resolve, 300))")
    assert {request.partition("#")[0] for request in browsed.requests} == {written.as_uri()}
    assert browsed.said == []


def test_picking_changes_numbers_curves_and_answers(browsed: Page) -> None:
    choose(browsed, show="all", find="", model="gpt2", editor="malmen", m=64, seed=1)
    assert "60.0" in text(browsed, "#numbers .picked") and "55.0 ± 7.1" in text(browsed, "#numbers .picked")
    assert browsed.do("location.hash") == "#model=gpt2&editor=malmen&m=64&seed=1"
    choose(browsed, m=2)
    assert "90.0" in text(browsed, "#numbers .picked") and "m = 2" in text(browsed, "#numbers caption")
    assert "6 tuples, in groups of 2" in text(browsed, "#about") and "edit 4 (before: 0)" in text(browsed, "#about")
    assert "6, group 3" in text(browsed, "#answers tbody:last-child .tuple")
    choose(browsed, editor="mend")
    assert "edit 1 (before: 0)" in text(browsed, "#about")
    browsed.wait("charts.ES.signal('picked_editor') === 'mend' && charts.LS.signal('picked_m') === 2")
    choose(browsed, model="bert")
    assert browsed.do("charts.ES.data('points').map(point => [point.editor, point.m, Math.round(point.value)])") == [
        ["malmen", 2, 90],
        ["mend", 2, 25],
        ["malmen", 64, 50],
    ]
    choose(browsed, m=64)
    assert REASON[:20] in text(browsed, "#about") and shown_tuples(browsed) == []


def test_a_point_picks_its_run(browsed: Page) -> None:
    choose(browsed, model="gpt2", editor="mend", m=2)
    browsed.do("document.querySelector('#chart-ES').scrollIntoView({block: 'center'})")
    browsed.do("new Promise(resolve => setTimeout(resolve, 200))")
    point = "[aria-label*='m: 64'][aria-label*='malmen']"
    box = browsed.do(f'document.querySelector("#chart-ES .mark-symbol path{point}").getBoundingClientRect().toJSON()')
    place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind in ("mousePressed", "mouseReleased"):
        browsed.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
    browsed.wait("document.getElementById('m').value === '64' && document.getElementById('editor').value === 'malmen'")


def test_filter_and_search(browsed: Page) -> None:
    choose(browsed, model="gpt2", editor="malmen", m=2, seed=0)
    expected = {"all": range(N), "failed": range(4, N), "spoiled": range(4, N), "right": range(4)}
    for show, places in expected.items():
        choose(browsed, show=show, find="")
        assert shown_tuples(browsed) == [f"t{i}" for i in places]
        assert text(browsed, "#hits") == f"{len(places)} of {N} tuples"
    choose(browsed, show="all", find="ELSE, 3")
    assert shown_tuples(browsed) == ["t3"]
    choose(browsed, find="<b>x number")
    assert len(shown_tuples(browsed)) == N
    choose(browsed, find="nowhere")
    assert shown_tuples(browsed) == [] and text(browsed, "#hits") == f"0 of {N} tuples"
    choose(browsed, find="")


def test_wrong_tokens_are_marked_and_text_is_no_markup(browsed: Page) -> None:
    choose(browsed, model="gpt2", editor="malmen", m=2, seed=0)
    cells = browsed.do(
        "[...document.querySelectorAll('#answers tbody:last-child tr:nth-child(2) td')].map(td => td.innerText)"
    )
    assert cells[0] == "Say who 5 is </script>" and cells[3].startswith("Ada <b>X\N{NO-BREAK SPACE}✗")
    marked = browsed.do("[...document.querySelectorAll('#answers tbody:last-child .wrong')].map(one => one.innerText)")
    assert marked == ["<b>X"] * 5


def test_each_number_links_to_its_line_of_the_lineage(browsed: Page, written: Path) -> None:
    numbers = SourcesFile.read(written.with_name("explorer.sources.json")).numbers
    choose(browsed, model="gpt2", editor="malmen", m=64, seed=0)
    rows = browsed.do(
        "[...document.querySelectorAll('#numbers tbody tr')].map(row => [row.querySelector('th').innerText.trim(),"
        "...[...row.querySelectorAll('td')].filter(td => td.innerText.trim()).map(td => td.querySelector('a').hash)])"
    )
    for name, *anchors in rows:
        editor = "none" if name == "before editing" else name.lower()
        found = [numbers[int(str(anchor).rpartition(".")[2])].of for anchor in anchors]
        assert len(found) == (3 if editor == "none" else 6)
        assert all((one["model"], one["editor"], one["n_edits"]) == ("gpt2", editor, 64) for one in found)
    links = browsed.do("[...document.querySelectorAll('#about a, #answers a')].map(a => a.getAttribute('href'))")
    assert len(links) == 7 + N and len(set(links)) == 1 and links[0].startswith("lineage.html#explorer.")
    of = numbers[int(links[0].rpartition(".")[2])].of
    assert (of["model"], of["editor"], of["n_edits"], of["seed"]) == ("gpt2", "malmen", 64, 0)


def test_an_address_names_a_view(browsed: Page) -> None:
    browsed.do("location.hash = 'model=bert&editor=mend&m=2&seed=0'")
    browsed.wait("document.getElementById('editor').value === 'mend' && document.getElementById('m').value === '2'")
    assert text(browsed, "#about") == "The answers of this run are not in this page."
    browsed.do("location.hash = 'model=nowhere&editor=nobody&m=7&seed=x'")
    browsed.wait("document.getElementById('model').value === 'gpt2'")
    assert browsed.do("['editor', 'm', 'seed'].map(name => document.getElementById(name).value)") == [
        "malmen",
        "64",
        "0",
    ]
    assert "NaN" not in text(browsed, "#curves")


def test_keys_suffice(browsed: Page) -> None:
    choose(browsed, model="gpt2", editor="malmen", m=64, seed=0)
    browsed.do("document.getElementById('model').focus()")
    for name in ("editor", "m"):
        browsed.press("Tab", 9)
        assert browsed.do("document.activeElement.id") == name
    browsed.press("ArrowUp", 38)
    browsed.wait("document.getElementById('m').value === '2' && location.hash.includes('m=2&')")
    browsed.do("document.querySelector('#numbers button').focus()")
    browsed.press("Enter", 13, "\r")
    browsed.wait("document.getElementById('editor').value === 'mend'")


def test_a_narrow_screen_needs_no_sideways_scrolling(browsed: Page) -> None:
    browsed.resize(360, 740)
    browsed.wait("innerWidth === 360")
    assert browsed.do("document.documentElement.scrollWidth") == 360
    labels = browsed.do("getComputedStyle(document.querySelector('#answers td'), '::before').content")
    assert "data-label" in labels or "Prompt" in labels
    widths = browsed.do("[...document.querySelectorAll('.chart svg')].map(svg => svg.getBoundingClientRect().width)")
    assert all(250 < width <= 360 for width in widths)
    browsed.resize(1280, 900)
