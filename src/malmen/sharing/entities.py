"""The entities of an RO-Crate: how each is added once, and how others refer to it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.data_entity import DataEntity
from rocrate.rocrate import ROCrate

from malmen.runtime.files import sha256

TERMS = "https://w3id.org/ro/terms/workflow-run#"
EXTRA_TERMS = {
    **{name: TERMS + name for name in ("ParameterConnection", "connection", "sourceParameter", "targetParameter")},
    **{name: TERMS + name for name in ("resourceUsage", "sha256")},
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
}
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".tex": "application/x-tex",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}

Reference = dict[str, str]
"""What stands for an entity elsewhere in a crate: its identifier."""


class Graph:
    """The entities of a crate; adding one twice has no effect."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_terms.update(EXTRA_TERMS)

    def add(self, identifier: str, kind: str, **properties: Any) -> Reference:
        """Add an entity unless it exists, without the properties that are None; return a reference to it."""
        if not self.crate.get(identifier):
            self.crate.add_jsonld({"@id": identifier, "@type": kind, **given(properties)})
        return {"@id": identifier}

    def add_file(self, path: str, kind: str | list[str] = "File", **properties: Any) -> Reference:
        """Add a file or directory of the checkout unless it exists; return a reference to it."""
        identifier = place(path, kind == "Dataset")
        if not self.crate.get(identifier):
            encoding = None if kind == "Dataset" else FORMATS.get(Path(path).suffix, "application/octet-stream")
            about = given({"@type": kind, "name": Path(path).name, "encodingFormat": encoding, **properties})
            self.crate.add(DataEntity(self.crate, identifier, properties=about))
        return {"@id": identifier}

    def add_own_file(self, path: str, kind: str | list[str] = "File", **properties: Any) -> Reference:
        """Add a file of the repository with its present content."""
        file = self.root / path
        return self.add_file(path, kind, sha256=sha256(file), contentSize=str(file.stat().st_size), **properties)

    def add_parameter(self, name: str, kind: str) -> Reference:
        """Add a formal parameter of a tool or of the workflow."""
        return self.add(name, "FormalParameter", additionalType=kind, name=name.rpartition("/")[2])

    def connect(self, source: str, target: str) -> Reference:
        """Add a connection between two parameters."""
        ends = {"sourceParameter": {"@id": source}, "targetParameter": {"@id": target}}
        return self.add(f"#connection/{source[1:]}-{target[1:]}", "ParameterConnection", **ends)


def given(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the properties that have a value; a list of one value becomes the value."""
    single = {n: v[0] if isinstance(v, list) and len(v) == 1 else v for n, v in properties.items()}
    return {name: value for name, value in single.items() if value not in (None, [])}


def references(names: Iterable[str]) -> list[Reference]:
    """Return references to entities, each once, in order."""
    return [{"@id": name} for name in sorted(set(names))]


def place(path: str, directory: bool) -> str:
    """Return the identifier of a file: its path in the checkout, or a URI if it is outside."""
    named = Path(path).as_uri() if Path(path).is_absolute() else quote(path)
    return f"{named}/" if directory else named
