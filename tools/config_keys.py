#!/usr/bin/env python3
"""Write the table of all keys in config/README.md; start it in the project's folder, in its environment."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from malmen.config.schema import file_schema

PAGE = Path("config", "README.md")
START, END = "<!-- keys -->\n", "<!-- end -->\n"


def tables() -> str:
    """Return one table for the top of a configuration and one for each of its sections."""
    schema = file_schema()
    parts = [section("Top level", "", schema)]
    done: set[str] = set()
    waiting = list(sections(schema, ""))
    while waiting:
        place, name = waiting.pop(0)
        if name not in done:
            done.add(name)
            definition = schema["$defs"][name]
            parts.append(section(f"`{place}`", definition.get("description", ""), definition))
            waiting += sections(definition, f"{place}.")
    return "\n".join(parts)


def sections(definition: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield where sections lie below a definition, and the names of their definitions."""
    for key, value in definition["properties"].items():
        entries = value.get("patternProperties")
        inner = next(iter(entries.values())) if entries else value.get("items", value)
        for option in (inner, *inner.get("anyOf", ()), *inner.get("oneOf", ())):
            if "$ref" in option:
                yield f"{prefix}{key}" + (".<name>" if entries else ""), option["$ref"].rpartition("/")[2]


def section(title: str, description: str, definition: Mapping[str, Any]) -> str:
    """Return the table of a section."""
    kind = next(
        (v["const"] for k, v in definition["properties"].items() if k in ("kind", "method") and "const" in v), ""
    )
    head = f"### {title}" + (f", {kind}" if kind else "")
    required = definition.get("required", ())
    rows = [
        f"| `{key}` | {value_type(value)} | {'required' if key in required else default(value)} | {meaning(value)} |"
        for key, value in definition["properties"].items()
    ]
    text = [head, "", *([description.partition("\n\n")[0].replace("\n", " "), ""] if description else [])]
    return "\n".join([*text, "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def value_type(value: Mapping[str, Any]) -> str:
    """Return the type of a key in words."""
    options = value.get("anyOf") or value.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(value_type(option) for option in options))
    if "$ref" in value or "patternProperties" in value or value.get("type") == "object":
        return "section"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(item)}`" for item in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {value_type(value['items'])}"
    return str(value.get("type", "any"))


def default(value: Mapping[str, Any]) -> str:
    """Return the default of a key; nothing for a section."""
    found = value.get("default")
    if isinstance(found, dict) or "default" not in value:
        return ""
    return f"`{json.dumps(found, ensure_ascii=False)}`"


def meaning(value: Mapping[str, Any]) -> str:
    """Return the description of a key in one line."""
    return str(value.get("description", "")).replace("\n", " ").replace("|", r"\|")


def page(text: str) -> str:
    """Return the page with the tables of today."""
    before, _, rest = text.partition(START)
    return before + START + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
