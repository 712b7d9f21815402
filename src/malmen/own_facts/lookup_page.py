"""The page on which every fact, rephrasing and unrelated prompt can be looked up: one file without network access."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from malmen.own_facts.answers import NOTHING, Answer
from malmen.own_facts.health import Generation, Verdict
from malmen.runtime.answers_table import TABLE_SCRIPT, TABLE_STYLE
from malmen.runtime.web_page import as_json, web_page

SHOW = {
    "all": "all prompts",
    "wrong": "wrong after the edit",
    "right": "right after the edit",
    "changed": "changed by the edit",
    "lost": "right before, wrong after",
}
"""The prompts that can be chosen."""
COLUMNS = {
    "number": "No.",
    "kind": "Kind",
    "prompt": "Prompt",
    "answer": "Right answer",
    "before": "Before",
    "after": "After",
    "right": "Right",
    "changed": "Changed",
}
"""The columns of the table, each of which can be sorted by."""
HOW_TO_READ = (
    "An answer is what the model said by itself, or, in brackets, what it answered token by token, each given the "
    "right tokens before it. It is right if it begins with the right answer, and changed if it differs from that "
    "before the edit as far as the right answer is long."
)


def lookup_page(
    title: str,
    verdict: Verdict,
    scores: Sequence[Sequence[str]],
    description: Sequence[str],
    answers: Mapping[str, Sequence[Answer]],
    written: Sequence[Generation] = (),
) -> str:
    """Return the page.

    Args:
        title: its title.
        verdict: whether to use the model.
        scores: name, value before, value after and meaning of each metric.
        description: lines on what was measured.
        answers: all answers, by the kind of their prompts.
        written: what the model writes by itself.
    """
    rows = [row(kind, answer) for kind, found in answers.items() for answer in found]
    shown = {"rows": rows, "columns": COLUMNS}
    body = [
        '<a class="skip" href="#prompts">Skip to the answers</a>',
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="verdict {verdict.level}">{escape(verdict.sentence)}</p>',
        *(f"<p>{escape(advice)}</p>" for advice in verdict.advice),
        "<noscript><p><strong>The table of answers needs JavaScript; the Markdown file does without it."
        "</strong></p></noscript>\n</header>\n<main>",
        *scores_table(scores),
        '<section id="prompts">\n<h2>Answers</h2>',
        f"<details><summary>How to read the answers</summary><p>{escape(HOW_TO_READ)}</p></details>",
        *controls([kind for kind, found in answers.items() if found]),
        '<table id="answers" class="prose"></table>\n<button type="button" id="more">Show more</button>\n</section>',
        *(generations(written) if written else ()),
        "<section>\n<h2>What was measured</h2>\n<ul>",
        *(f"<li>{escape(line)}</li>" for line in description),
        "</ul>\n</section>\n</main>",
        f'<script type="application/json" id="content">{as_json(shown)}</script>',
    ]
    return web_page(title, body, TABLE_SCRIPT + SCRIPT, TABLE_STYLE + STYLE)


def row(kind: str, answer: Answer) -> list[str | bool | None]:
    """Return what the table shows of an answer: the columns after the number, and whether it was right before."""
    texts = [kind, answer.prompt, answer.answer, answer.shown_before, answer.shown]
    return [*texts, answer.right, answer.changed, answer.right_before]


def scores_table(scores: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the table of scores."""
    yield '<div class="wide" tabindex="0" role="region" aria-label="Scores"><table id="scores">'
    yield "<thead><tr><th></th><th>before</th><th>after</th><th></th></tr></thead>\n<tbody>"
    for name, *cells in scores:
        yield f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(text)}</td>" for text in cells)}</tr>'
    yield "</tbody></table></div>"


def generations(written: Sequence[Generation]) -> Iterator[str]:
    """Yield the part with what the model writes by itself."""
    yield '<section id="written">\n<h2>What the model writes by itself</h2>\n<dl>'
    for one in written:
        yield f"<dt>{escape(one.opening)} …</dt>"
        if one.before is not None:
            yield f"<dd>before: {escape(one.before or NOTHING)}</dd>"
        yield f"<dd>after: {escape(one.after or NOTHING)}</dd>"
    yield "</dl>\n</section>"


def controls(kinds: Sequence[str]) -> Iterator[str]:
    """Yield the fields by which prompts are chosen and sorted."""
    yield '<form id="filter" aria-label="The prompts to show">'
    of_kinds = options({"": "all kinds"} | {kind: kind for kind in kinds})
    yield f'<label>Kind <select id="kind">{of_kinds}</select></label>'
    yield f'<label>Show <select id="show">{options(SHOW)}</select></label>'
    yield f'<label>Sort by <select id="sort">{options(COLUMNS)}</select></label>'
    yield '<label>Order <select id="order"><option value="1">ascending</option>'
    yield '<option value="-1">descending</option></select></label>'
    yield '<label>Search <input type="search" id="find" placeholder="words of prompts or answers"/></label>'
    yield '<span id="hits" role="status"></span>\n</form>'


def options(labels: Mapping[str, str]) -> str:
    """Return the options of a field."""
    return "".join(f'<option value="{escape(key)}">{escape(label)}</option>' for key, label in labels.items())


SCRIPT = r"""
const page = JSON.parse(at("content").textContent);
const STEP = 200;  // rows that are shown at first, and more with each click
const rows = page.rows.map((row, i) => Object.fromEntries(
  [...Object.keys(page.columns), "rightBefore"].map((name, j) => [name, j ? row[j - 1] : i + 1])));
const FITS = {
  all: () => true,
  wrong: row => !row.right,
  right: row => row.right,
  changed: row => row.changed,
  lost: row => row.rightBefore && !row.right,
};
let most = STEP;

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

function chosen() {
  const [kind, show, find] = ["kind", "show", "find"].map(name => at(name).value);
  const fitting = rows.filter(row => (!kind || row.kind === kind) && FITS[show](row)
    && hasWords(find, [row.prompt, row.answer, row.before ?? "", row.after]));
  const by = at("sort").value, order = Number(at("order").value);
  return fitting.sort((a, b) => order * compare(a[by], b[by]) || a.number - b.number);
}

function sortBy(name) {
  const again = at("sort").value === name && at("order").value === "1";
  at("sort").value = name;
  at("order").value = again ? "-1" : "1";
  update();
  document.querySelector(`#answers button[data-column="${name}"]`).focus();
}

function head() {
  const buttons = Object.entries(page.columns).map(([name, label]) => {
    const button = element("button", { type: "button", "data-column": name }, label);
    button.addEventListener("click", () => sortBy(name));
    return button;
  });
  const made = headOf(...buttons);
  const sorted = made.querySelector(`button[data-column="${at("sort").value}"]`).parentElement;
  sorted.setAttribute("aria-sort", at("order").value === "1" ? "ascending" : "descending");
  return made;
}

const said = value => value === null ? "–" : value ? "yes" : "no";

function drawn(row) {
  const before = row.before === null ? ["–"] : [row.before, ...signs(row.rightBefore)];
  return element("tr", { role: "row", "data-number": row.number },
    cell(page.columns.number, String(row.number)),
    element("th", { class: "kind", scope: "row", role: "rowheader" }, row.kind),
    cell(page.columns.prompt, row.prompt),
    cell(page.columns.answer, row.answer),
    cell(page.columns.before, ...before),
    cell(page.columns.after, row.after, ...signs(row.right)),
    cell(page.columns.right, said(row.right)),
    cell(page.columns.changed, said(row.changed)));
}

function update() {
  const found = chosen();
  at("answers").replaceChildren(head(), element("tbody", { role: "rowgroup" }, ...found.slice(0, most).map(drawn)));
  at("hits").textContent = `${found.length} of ${rows.length} prompts`;
  at("more").hidden = found.length <= most;
}

function restart() {
  most = STEP;
  update();
}

for (const name of ["kind", "show", "sort", "order"]) at(name).addEventListener("change", restart);
at("find").addEventListener("input", restart);
at("more").addEventListener("click", () => { most += STEP; update(); });
at("filter").addEventListener("submit", event => event.preventDefault());
update();
"""

STYLE = """
.verdict{font-size:1.15em;font-weight:600;border-left:.4rem solid #b8860b;padding:.4em .8em;background:#8882}
.verdict.fine{border-color:#1e8449} .verdict.refuse{border-color:#c0392b}
#scores td:last-child{text-align:left} #scores td{font-variant-numeric:tabular-nums}
#answers thead button{all:unset;cursor:pointer;text-decoration:underline dotted;white-space:nowrap}
#answers thead button:focus-visible{outline:3px solid var(--mark)}
#answers [aria-sort=ascending] button::after{content:" ▲"} #answers [aria-sort=descending] button::after{content:" ▼"}
#scores :is(th,td){white-space:nowrap} #more{font:inherit;padding:.4em .8em;margin:.8rem 0}
@media (min-width:45.01rem){#answers tbody :is(th,td){border-bottom:1px solid var(--line)}}
@media (max-width:45rem){
#scores td:last-child{white-space:normal} #answers tbody tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
}
"""
