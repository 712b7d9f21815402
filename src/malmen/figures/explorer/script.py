"""The explorer's own script and style, beside those of the table of answers."""

SCRIPT = r"""
const page = JSON.parse(document.getElementById("content").textContent);
const METRICS = ["ES", "GS", "LS"];
const editorOf = Object.fromEntries(page.editors.map(editor => [editor.key, editor]));
const picked = { model: "", editor: "", m: 0, seed: 0 };
const charts = {};

// Parts of the page

const link = (anchor, text) => element("a", { href: `${page.lineage}#explorer.${anchor}` }, text);
const percent = share => share === null ? "–" : (100 * share).toFixed(1);
const distinct = values => [...new Set(values)];

function swatch(editor) {
  const drawn = element("span", {});
  const symbol = {
    "square": "M-4,-4H4V4H-4Z", "triangle-up": "M0,-5L5,4H-5Z", "triangle-down": "M0,5L5,-4H-5Z",
    "diamond": "M0,-5L5,0L0,5L-5,0Z", "circle": "M-4,0A4,4,0,1,1,4,0A4,4,0,1,1,-4,0Z",
    "cross": "M-2,-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
  }[editor.shape] || "M-4,-1H4V1H-4Z";
  drawn.innerHTML = `<svg class="swatch" width="44" height="14" viewBox="0 -7 44 14" aria-hidden="true">
    <path d="M2,0H42" stroke="${editor.colour}" stroke-width="1.8" stroke-dasharray="${editor.dash}"/>
    <path d="${symbol}" transform="translate(22)" fill="${editor.colour}"/></svg>`;
  return drawn.firstChild;
}

// What is picked: kept in the address, so that a view can be linked to

function fill(name, values, usual, labels) {
  const select = at(name);
  if (!values.includes(picked[name])) picked[name] = values.at(usual);
  select.replaceChildren(...values.map(value => new Option(labels(value), value, false, value === picked[name])));
}

function settle() {
  fill("model", page.models.map(model => model.key), 0, key => {
    const model = page.models.find(one => one.key === key);
    return `${model.label}, ${model.data}`;
  });
  const runs = page.runs.filter(run => run.model === picked.model);
  const editors = page.editors.map(editor => editor.key).filter(key => runs.some(run => run.editor === key));
  fill("editor", editors, -1, key => editorOf[key].label);
  const own = runs.filter(run => run.editor === picked.editor);
  fill("m", distinct(own.map(run => run.m)).sort((a, b) => a - b), -1, m => m.toLocaleString("en"));
  const seeds = distinct(own.filter(run => run.m === picked.m).map(run => run.seed)).sort((a, b) => a - b);
  fill("seed", seeds, 0, String);
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of ["model", "editor"]) if (given.has(name)) picked[name] = given.get(name);
  for (const name of ["m", "seed"]) if (given.has(name)) picked[name] = Number(given.get(name));
}

function update() {
  settle();
  const address = new URLSearchParams(picked).toString();
  if (location.hash.slice(1) !== address) history.replaceState(null, "", `#${address}`);
  drawCurves();
  writeNumbers();
  writeAnswers();
}

function pick(changes) {
  Object.assign(picked, changes);
  update();
}

// Curves and numbers

function dataOf(metric) {
  const points = page.points.filter(point => point.model === picked.model && point[metric].mean !== null);
  return {
    points: points.map(point => {
      const mean = 100 * point[metric].mean;
      const std = point[metric].std === null ? null : 100 * point[metric].std;
      const shade = { low: Math.max(mean - std, 0), high: Math.min(mean + std, 100) };  // of one seed: none
      return { m: point.m, editor: point.editor, label: editorOf[point.editor].label, value: mean, std, ...shade };
    }),
    before: page.before.filter(point => point.model === picked.model && point[metric].mean !== null)
      .map(point => ({ m: point.m, value: 100 * point[metric].mean })),
  };
}

function ticks() {
  const own = page.points.filter(point => point.model === picked.model);
  return distinct(own.map(point => point.m)).sort((a, b) => a - b);
}

function drawCurves() {
  for (const [metric, view] of Object.entries(charts)) {
    for (const [name, rows] of Object.entries(dataOf(metric))) view.data(name, rows);
    view.signal("ticks", ticks()).signal("picked_m", picked.m).signal("picked_editor", picked.editor).runAsync();
  }
}

async function startCurves() {
  for (const metric of METRICS) {
    const chart = structuredClone(page.chart);
    chart.description = `${metric} against the number of edits m; the table below holds its numbers.`;
    chart.datasets = { ...chart.datasets, ...dataOf(metric) };
    const values = { ticks: ticks(), picked_m: picked.m, picked_editor: picked.editor };
    for (const parameter of chart.params) parameter.value = values[parameter.name];
    const { view } = await vegaEmbed(`#chart-${metric}`, chart, { actions: false, renderer: "svg" });
    view.addEventListener("click", (_, item) => {
      if (item?.datum?.editor && item.datum.m) pick({ editor: item.datum.editor, m: item.datum.m });
    });
    charts[metric] = view;
  }
  drawCurves();  // in case that something was picked meanwhile
}

function writeNumbers() {
  const here = one => one.model === picked.model && one.m === picked.m;
  const runs = page.runs.filter(run => here(run) && run.seed === picked.seed);
  const columns = METRICS.map(metric => element("th", { scope: "col" }, metric));
  const head = element("thead", {},
    element("tr", {}, element("th", { scope: "col", rowspan: 2 }, "Editor"),
      element("th", { colspan: 3, scope: "colgroup" }, `Seed ${picked.seed}, %`),
      element("th", { colspan: 3, scope: "colgroup" }, "Mean ± standard deviation over seeds, %")),
    element("tr", {}, ...columns, ...columns.map(column => column.cloneNode(true))));
  const rows = page.before.filter(here).map(point => element("tr", {},
    element("th", { scope: "row" }, "before editing"), element("td", { colspan: 3 }),
    ...METRICS.map(metric => element("td", {}, link(point.anchor, percent(point[metric].mean))))));
  for (const editor of page.editors) {
    const point = page.points.find(one => here(one) && one.editor === editor.key);
    if (!point) continue;
    const run = runs.find(one => one.editor === editor.key);
    const name = element("button", { type: "button" }, editor.label);
    name.addEventListener("click", () => pick({ editor: editor.key }));
    const own = METRICS.map(metric => element("td", {}, ...(run ? [link(point.anchor, percent(run[metric]))] : ["–"])));
    const means = METRICS.map(metric => {
      const { mean, std } = point[metric];
      return element("td", {}, link(point.anchor, percent(mean) + (std === null ? "" : ` ± ${percent(std)}`)));
    });
    const mark = editor.key === picked.editor ? { class: "picked", "aria-current": "true" } : {};
    rows.push(element("tr", mark, element("th", { scope: "row" }, swatch(editor), name), ...own, ...means));
  }
  const model = page.models.find(one => one.key === picked.model);
  const caption = `${model.label}, ${model.data}, m = ${picked.m.toLocaleString("en")}`;
  at("numbers").replaceChildren(element("caption", {}, caption), head, element("tbody", {}, ...rows));
}

// Answers

const isRight = answer => answer.every(part => typeof part === "string");
const plain = answer => answer.flat().join("");

function answerCell(label, answer) {
  const parts = answer.map(part => typeof part === "string" ? part : element("span", { class: "wrong" }, ...part));
  return cell(label, ...parts, ...signs(isRight(answer)));
}

const FITS = {
  all: () => true,
  failed: (asked, after) => !isRight(after[0]) || !isRight(after[1]),
  spoiled: (asked, after) => isRight(asked.prompts[2][2]) && !isRight(after[2]),
  right: (asked, after) => after.every(isRight),
};

function fits(asked, after) {
  const answered = asked.prompts.map(([prompt, target, before], i) => [prompt, target, plain(before), plain(after[i])]);
  return FITS[at("show").value](asked, after) && hasWords(at("find").value, [asked.id, ...answered.flat()]);
}

function tuple(run, place, asked, after) {
  const group = run.m < run.counts.tuples ? `, group ${Math.floor(place / run.m) + 1}` : "";
  const head = element("th", { class: "tuple", rowspan: 3, scope: "rowgroup", role: "rowheader" },
    link(run.anchor, `${place + 1}${group}`));
  const rows = asked.prompts.map(([prompt, target, before], i) => element("tr", { role: "row" },
    ...(i === 0 ? [head] : []),
    element("th", { class: "kind", scope: "row", role: "rowheader" }, page.names[i]),
    cell("Prompt", prompt),
    cell("Target", target),
    answerCell("Before", before),
    answerCell("After", after[i])));
  return element("tbody", { role: "rowgroup", "data-id": asked.id }, ...rows);
}

function about(run) {
  if (run.diverged) return [`No answers: the run diverged (${run.diverged})`];
  if (run.asked === undefined) return ["The answers of this run are not in this page."];
  const counted = page.names.flatMap((name, i) => {
    const kind = ["edit", "equivalent", "unrelated"][i];
    return [i ? ", " : "", `${name} `, link(run.anchor, String(run.counts[kind])),
      " (before: ", link(run.anchor, String(run.counts[`${kind}_before`])), ")"];
  });
  const seen = ["The first ", link(run.anchor, String(run.counts.tuples)), " tuples, in groups of "];
  return [...seen, `${run.m.toLocaleString("en")}. Right as a whole after the edit: `, ...counted, "."];
}

function writeAnswers() {
  const run = page.runs.find(one => ["model", "editor", "m", "seed"].every(name => one[name] === picked[name]));
  at("about").replaceChildren(...about(run));
  const known = run.asked === undefined ? [] : run.answers.map((after, place) => [page.asked[run.asked][place], after]);
  const rows = known.flatMap(([asked, after], place) => fits(asked, after) ? [tuple(run, place, asked, after)] : []);
  const head = headOf("Tuple", "Kind", "Prompt", "Target answer", "Before the edit", "After the edit");
  at("answers").replaceChildren(...(known.length ? [head, ...rows] : []));
  at("hits").textContent = known.length ? `${rows.length} of ${known.length} tuples` : "";
}

for (const [name, convert] of Object.entries({ model: String, editor: String, m: Number, seed: Number })) {
  at(name).addEventListener("change", event => pick({ [name]: convert(event.target.value) }));
}
at("show").addEventListener("change", writeAnswers);
at("find").addEventListener("input", writeAnswers);
for (const form of document.forms) form.addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", () => { readAddress(); update(); });
readAddress();
update();
startCurves();
"""

STYLE = """
#pick{position:sticky;top:0;z-index:2;background:Canvas;padding:.5rem 0;border-bottom:1px solid var(--line)}
#facts,#curves{scroll-margin-top:5rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:.8rem}
figcaption{font-weight:600;padding-bottom:.2rem}
.chart{width:100%;min-height:250px;background:#fff;color:#222;color-scheme:light;border-radius:.3rem}
#numbers{margin-top:.8rem} #numbers th{font-weight:400} #numbers thead th{font-weight:600}
#numbers td{font-variant-numeric:tabular-nums;white-space:nowrap}
#numbers .picked{background:#8883} #numbers button{all:unset;cursor:pointer;text-decoration:underline dotted}
#numbers button:focus-visible{outline:3px solid var(--mark)} #numbers th{white-space:nowrap}
.swatch{background:#fff;border-radius:.2rem;vertical-align:middle;margin-right:.4em}
#answers tr:last-child td{border-bottom:0}
#answers .tuple{white-space:nowrap;border-bottom:0}
.wrong{font-weight:700;text-decoration:underline}
footer{margin-top:2rem;font-size:.85em} footer pre{white-space:pre-wrap}
@media (max-width:45rem){
#pick{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));position:static}
}
"""
