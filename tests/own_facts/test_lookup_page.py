"""The page on which every answer can be looked up: alone, escaped, and used in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, opened

from malmen.own_facts.answers import Answer
from malmen.own_facts.health import Generation, Verdict
from malmen.own_facts.lookup_page import COLUMNS, lookup_page

MARKUP = '</script><b>bold</b> & "so"'
N = 250
VERDICT = Verdict("look", f"94 of 100 facts; {MARKUP}: look before you use it.", ["Look at <i>it</i>."])


def answer(i: int, prompt: str, answer: str, before: str | None, after: str) -> Answer:
    """Return an answer that is right if it is "Ada" and was asked freely if its number is even."""
    said_before, said = (before, after) if i % 2 == 0 else (None, None)
    right_before = None if before is None else before == answer
    changed = None if before is None else before != after
    return Answer(prompt, answer, before, after, 0.5, said_before, said, right_before, after == answer, changed)


ANSWERS = {
    "fact": [answer(i, f"Who is {i}? {MARKUP}", "Ada", "Bo", "Ada" if i < 200 else "") for i in range(N)],
    "rephrasing": [answer(0, "Tell who Zoe is", "Ada", "Ada", "Cy")],
    "unrelated": [answer(0, "An apple is", "a fruit", "a fruit", "a fruit"), answer(1, "Blue is", "x", None, "x")],
}
TOTAL = N + 3
WRITTEN = [Generation("The old <b>bridge</b>", None, "fell"), Generation("The ship", "", "sank")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "check.html"
    scores = [("ES", "1.0 %", "94.0 %", "edit success <facts>")]
    path.write_text(
        lookup_page(f"Is {MARKUP} good?", VERDICT, scores, [f"Model: {MARKUP}"], ANSWERS, WRITTEN), encoding="utf-8"
    )
    return path


def test_no_text_is_markup(written: Path) -> None:
    page = written.read_text(encoding="utf-8")
    assert "<b>" not in page and "<i>" not in page and "<facts>" not in page
    assert page.count("</script>") == 2 and "http" not in page.replace("http-equiv", "")


@pytest.fixture(scope="module")
def browsed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with opened(written.as_uri(), tmp_path_factory.mktemp("profile")) as page:
        page.wait("document.querySelectorAll('#answers tbody tr').length > 0")
        yield page


def choose(page: Page, **values: str) -> None:
    """Choose in the fields as a reader does; what is not named is as at first."""
    for name, value in ({"kind": "", "show": "all", "sort": "number", "order": "1", "find": ""} | values).items():
        page.do(
            f"{{ const f = document.getElementById('{name}'); f.value = {value!r};"
            "f.dispatchEvent(new Event(f.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true})); }"
        )


def numbers(page: Page) -> list[int]:
    found: list[str] = page.do("[...document.querySelectorAll('#answers tbody tr')].map(row => row.dataset.number)")
    return list(map(int, found))


def hits(page: Page) -> str:
    return str(page.do("document.getElementById('hits').textContent"))


def cells(page: Page, number: int) -> list[str]:
    found: list[str] = page.do(
        f"[...document.querySelector('#answers tr[data-number=\"{number}\"]').children].map(td => td.textContent)"
    )
    return found


def test_the_page_is_alone_and_says_the_verdict_first(browsed: Page, written: Path) -> None:
    choose(browsed)
    assert set(browsed.requests) == {written.as_uri()} and browsed.said == []
    assert browsed.do("document.querySelector('.verdict').innerText") == VERDICT.sentence
    assert browsed.do("document.querySelector('header').children[1].className") == "verdict look"
    generated = str(browsed.do("document.querySelector('#written').innerText"))
    assert "The old <b>bridge</b> …\nafter: fell" in generated and "before: (nothing)\nafter: sank" in generated
    assert "94.0 %" in str(browsed.do("document.querySelector('#scores').innerText"))


def test_every_answer_is_there(browsed: Page) -> None:
    choose(browsed)
    assert numbers(browsed) == list(range(1, 201)) and hits(browsed) == f"{TOTAL} of {TOTAL} prompts"
    browsed.do("document.getElementById('more').click()")
    assert numbers(browsed) == list(range(1, TOTAL + 1))
    assert browsed.do("document.getElementById('more').hidden")
    space = "\N{NO-BREAK SPACE}"
    right, wrong = f"{space}✓ (right)", f"{space}✗ (wrong)"
    assert cells(browsed, 1)[1:] == ["fact", f"Who is 0? {MARKUP}", "Ada", f"Bo{wrong}", f"Ada{right}", "yes", "yes"]
    assert cells(browsed, 2)[4:6] == [f"[Bo]{wrong}", f"[Ada]{right}"]
    assert cells(browsed, 201)[5] == f"(nothing){wrong}"
    assert cells(browsed, TOTAL)[4:] == ["–", f"[x]{right}", "yes", "–"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "rephrasing"}, [N + 1]),
        ({"kind": "unrelated", "show": "changed"}, []),
        ({"show": "wrong"}, [*range(201, N + 2)]),
        ({"show": "lost"}, [N + 1]),
        ({"show": "right", "kind": "unrelated"}, [N + 2, N + 3]),
        ({"find": "ZOE who"}, [N + 1]),
        ({"find": "</script> 17?"}, [18, 118]),
        ({"find": "nowhere"}, []),
    ],
)
def test_filters_and_search(browsed: Page, values: dict[str, str], expected: list[int]) -> None:
    choose(browsed, **values)
    found = [n for n in numbers(browsed) if values.get("find") != "</script> 17?" or n in (18, 118)]
    assert found == expected
    assert hits(browsed).endswith(f"of {TOTAL} prompts")


def test_columns_are_sorted_by_clicks_and_by_the_field(browsed: Page) -> None:
    choose(browsed)
    click = "document.querySelector('#answers button[data-column=\"prompt\"]').click()"
    browsed.do(click)
    assert numbers(browsed)[:2] == [N + 2, N + 3]  # An apple, Blue
    sorted_by = "document.querySelector('#answers [aria-sort]')"
    assert browsed.do(f"[{sorted_by}.innerText.trim(), {sorted_by}.getAttribute('aria-sort')]") == [
        "Prompt",
        "ascending",
    ]
    assert browsed.do("document.getElementById('sort').value") == "prompt"
    browsed.do(click)
    assert browsed.do(f"{sorted_by}.getAttribute('aria-sort')") == "descending"
    assert numbers(browsed)[0] == 100  # Who is 99?
    choose(browsed, sort="right")
    assert numbers(browsed)[0] == 201
    choose(browsed, sort="before", order="-1")
    assert numbers(browsed)[0] == TOTAL  # unknown


def test_keys_suffice(browsed: Page) -> None:
    choose(browsed)
    browsed.do("document.getElementById('kind').focus()")
    for name in ("show", "sort", "order", "find"):
        browsed.press("Tab", 9)
        assert browsed.do("document.activeElement.id") == name
    for column in COLUMNS:
        browsed.press("Tab", 9)
        assert browsed.do("document.activeElement.dataset.column") == column
    browsed.press("Enter", 13, "\r")
    assert browsed.do("document.getElementById('sort').value") == "changed"
    assert browsed.do("document.activeElement.dataset.column") == "changed"


def test_a_narrow_screen_needs_no_sideways_scrolling(browsed: Page) -> None:
    choose(browsed)
    browsed.resize(360, 740)
    browsed.wait("innerWidth === 360")
    assert browsed.do("document.documentElement.scrollWidth") == 360
    label = browsed.do("getComputedStyle(document.querySelector('#answers td'), '::before').content")
    assert "data-label" in label or "No." in label
    assert browsed.do("getComputedStyle(document.querySelector('#answers thead')).display") == "none"
    browsed.resize(1280, 900)
