"""The table of prompts and answers that pages without network access share: its script and its style."""

TABLE_SCRIPT = r"""
"use strict";
const at = id => document.getElementById(id);

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const cell = (label, ...children) => element("td", { "data-label": label, role: "cell" }, ...children);

function headOf(...names) {
  const cells = names.map(name => element("th", { scope: "col", role: "columnheader" }, name));
  return element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...cells));
}

function signs(right) {
  const sign = element("span", { class: right ? "yes" : "no", "aria-hidden": "true" }, right ? "\u00a0✓" : "\u00a0✗");
  return [sign, element("span", { class: "hidden-text" }, right ? " (right)" : " (wrong)")];
}

function hasWords(search, texts) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = texts.join(" ").toLowerCase();
  return words.every(word => text.includes(word));
}
"""

TABLE_STYLE = """
form{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:end;margin:.6rem 0}
form label{display:flex;flex-direction:column;font-size:.85em}
select,input{font:inherit;padding:.25em;height:2.2em;box-sizing:border-box;max-width:100%} #find{width:20rem}
#answers{width:100%} #answers tbody{border-bottom:1px solid var(--line)} #answers tbody th{font-weight:400}
#answers td{overflow-wrap:break-word} #answers .kind{white-space:nowrap}
.no{color:#c0392b} .yes{color:#1e8449}
@media (prefers-color-scheme:dark){.no{color:#ff8a75} .yes{color:#6fd08c}}
.hidden-text{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:45rem){
#find,#show{width:100%} #filter label{width:100%}
#answers,#answers tbody,#answers tr,#answers th,#answers td{display:block} #answers thead{display:none}
#answers tbody{padding:.5rem 0} #answers :is(th,td){padding:.1rem 0;border:0}
#answers .kind{font-weight:600;margin-top:.4rem}
#answers td::before{content:attr(data-label) ": ";opacity:.7}
}
"""
