"""The registry of models, ``config/models.yaml``: what is known of a model in whatever configuration it is edited."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REGISTRY = Path(__file__).parents[3] / "config" / "models.yaml"
OF_THE_COMMIT = ("sha256", "pickle", "download_bytes")
"""Keys of an entry that a configuration with a revision of its own, or another file of weights, does not take over."""
OF_THE_PUBLISHED = ("pretrained", "package", "revision", *OF_THE_COMMIT)
"""Keys of an entry that a configuration with a model of its own does not take over."""
OF_FULL_SIZE = (*OF_THE_PUBLISHED, "dtype", "shape", "chunks")
"""Keys of an entry that a tiny model trained from scratch does not take over."""
ENTRY_KEYS = (*OF_THE_PUBLISHED, "task", "dtype", "ffn", "shape", "chunks")


def read_registry(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the entries by name.

    Raises:
        ValueError: if the file is none, or an entry of it has another key than those of :data:`ENTRY_KEYS`.
    """
    path = path or REGISTRY
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"the registry of models {path} cannot be read ({type(error).__name__})") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"the registry of models {path} must map names to mappings")
    for name, entry in entries.items():
        if unknown := [key for key in entry if key not in ENTRY_KEYS]:
            raise ValueError(f"{path.name} gives {name} the key {unknown[0]!r}; known are {', '.join(ENTRY_KEYS)}")
    return entries


def entry_for(model: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a model of a configuration, which lies at ``where``, takes from the entry it names; {} if none.

    Raises:
        ValueError: if there is no such entry.
    """
    name = model.get("registry")
    if name is None:
        return {}
    entries = read_registry()
    if not isinstance(name, str) or name not in entries:
        raise ValueError(f"{where}.registry is {name!r} but must be one of {', '.join(entries)}")
    left_out: tuple[str, ...] = ()
    converts = model.get("pickle") is not None and "pickle" not in entries[name]
    if converts or model.get("revision") not in (None, entries[name].get("revision")):
        left_out = OF_THE_COMMIT
    if model.get("pretrained") is not None or model.get("package") is not None:
        left_out = OF_THE_PUBLISHED
    if model.get("scratch") is not None:
        left_out = OF_FULL_SIZE
    return {key: value for key, value in entries[name].items() if key not in left_out}
