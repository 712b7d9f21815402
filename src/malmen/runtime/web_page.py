"""The common frame of web pages: one file without network access, light and dark, for narrow screens and keyboards."""

import json
import re
from collections.abc import Iterable
from html import escape

STYLE = """
:root{color-scheme:light dark;--line:#8886;--mark:#d55e00}
body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:0 auto;padding:.8rem}
h1{font-size:1.6em} h2{font-size:1.25em;margin:1.6em 0 .5em} summary{cursor:pointer;padding:.2em 0}
summary :is(h2,h3){display:inline;margin:0} h3{font-size:1em}
table{border-collapse:collapse} caption{text-align:left;padding-bottom:.6em}
th,td{padding:.15em .7em;text-align:right} th:first-child,td:first-child{text-align:left}
th[colspan]{text-align:center} .prose :is(th,td){text-align:left;vertical-align:top}
thead tr:last-child th,tbody tr:last-child td{border-bottom:1px solid var(--line)}
.wide{overflow-x:auto} .setting{border-left:.3rem solid var(--mark);padding:.4em .8em;background:#d55e001f}
figure{margin:0} img{max-width:100%;height:auto;background:#fff} nav ul{columns:16rem;padding-left:1.2em}
code{font-size:.85em;overflow-wrap:anywhere} :focus-visible{outline:3px solid var(--mark);outline-offset:2px}
.skip{position:absolute;left:-99rem} .skip:focus{position:static} input[type=search]{font:inherit;width:min(30rem,90%)}
"""


def web_page(title: str, body: Iterable[str], script: str = "", style: str = "") -> str:
    """Return a web page; ``body``, ``script`` and ``style`` (beside the common one) are as they stand in it."""
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n<title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            f"<style>{STYLE}{style}</style>\n</head>\n<body>",
            *body,
            *([f"<script>{script}</script>"] if script else []),
            "</body>\n</html>\n",
        ]
    )


def as_json(value: object) -> str:
    """Return a value as JSON that can stand in a page: no text of it ends an element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def banner(note: str) -> str:
    """Return the line that says how the setting differs from the paper's; empty if it does not."""
    return f'<p class="setting"><strong>{escape(note)}</strong></p>' if note else ""


def main_part(page: str) -> str:
    """Return what stands in the element ``main`` of a page."""
    found = re.search(r"<main>(.*)</main>", page, re.DOTALL)
    return found[1] if found else ""
