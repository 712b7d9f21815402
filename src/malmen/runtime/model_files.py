"""Which files of a model directory hold its weights: those that transformers' ``from_pretrained`` reads.

A directory may hold other weights, such as those in half precision (``model.fp16.safetensors``), of another library
(``consolidated.safetensors``), or of an adapter. They are not the model's.
"""

import json
import re
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from malmen.errors import UserError
from malmen.runtime.text import first_few

WHOLE = "model.safetensors"
"""The file of all weights."""
INDEX = "model.safetensors.index.json"
"""The file that maps each tensor to its file, if the weights are split over several files."""
FACT_HEAD = "fact_head."
"""What the names of the weights of a fact-checking head begin with."""
SOURCE = "source.json"
"""The file beside downloaded weights that records their source and SHA-256."""
TEMPLATES = "additional_chat_templates"
"""The folder of further chat templates beside a tokenizer."""
PICKLED = ("*.bin", "*.h5", "*.msgpack", "*.ckpt", "*.pt", "*.pth")
"""Weights in other formats than safetensors."""


def weights_files(directory: Path, name: str | None = None) -> list[Path]:
    """Return the files that transformers reads a model's weights from, sorted by name.

    That is the file that ``transformers_weights`` in ``config.json`` names, or else ``model.safetensors``, or else the
    parts that the index names.

    Args:
        directory: the model directory.
        name: its name in messages; by default its path.

    Raises:
        UserError: if there are no such files, or the index cannot be read or names a file that is not there.
    """
    name = name or str(directory)
    main, index = main_and_index(directory)
    if (adapter := directory / "adapter_config.json").is_file() and (main.is_file() or index.is_file()):
        raise UserError(
            f"{name} holds an adapter beside a model, and what reads it may take either; merge them (peft's "
            f"merge_and_unload) and give the result, or remove {adapter.name} if the weights are merged."
        )
    if main.is_file():
        return [main]
    if main.is_symlink():
        raise UserError(f"{name} has a {main.name} that links to a file that is not there; download it again.")
    if not index.is_file():
        raise UserError(f"{name} {reason_for_none(directory)}.")
    found = sorted({directory / part for part in parts_of(index, name)})
    if missing := [path.name for path in found if not path.is_file()]:
        raise UserError(f"{name} lacks the file {missing[0]} of its weights; download it again.")
    return found


def main_and_index(directory: Path) -> tuple[Path, Path]:
    """Return where a directory's file of all weights, and its index, are if they exist."""
    named = read_object(directory / "config.json").get("transformers_weights")
    if isinstance(named, str) and named.endswith(".index.json") and "/" not in named:
        return directory / named.removesuffix(".index.json"), directory / named
    return directory / (named if is_a_name(named) else WHOLE), directory / INDEX


def is_a_name(name: object) -> TypeGuard[str]:
    """Return whether this is the name of a safetensors file, and no path that leads elsewhere."""
    return isinstance(name, str) and name.endswith(".safetensors") and not {"/", "\\"} & set(name)


def parts_of(index: Path, name: str) -> list[str]:
    """Return the files of weights that an index names.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if parts and all(is_a_name(part) for part in parts):
            return parts
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{name} has an {index.name} that cannot be read; download it again.")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none, or the file cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def reason_for_none(directory: Path) -> str:
    """Say why there are no weights that transformers reads, and what to do about it."""
    if adapter := read_object(directory / "adapter_config.json").get("base_model_name_or_path"):
        return f"holds an adapter of {adapter}, not a model; merge them (peft's merge_and_unload) and give the result"
    if others := sorted(path.name for path in directory.glob("*.safetensors")):
        return (
            f"holds no weights that transformers reads ({WHOLE}, or the files that {INDEX} names), only "
            f"{first_few(others)}; download the missing files, or rename the file that holds the whole model"
        )
    others = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
    only = f", only {', '.join(others)}, which could run code" if others else ""
    return (
        f"has no safetensors{only}; take the commit of a revision that has them (on the hub often a pull request of "
        "the conversion service), or convert it where you trust it and give the local directory"
    )


def write_source(directory: Path, **record: str) -> None:
    """Write the record of where a directory's model was fetched from."""
    (directory / SOURCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def source_of(directory: Path) -> dict[str, str] | None:
    """Return the record of where a directory's model was fetched from; None if it was not fetched."""
    return read_object(directory / SOURCE) or None


def weights_among(names: Iterable[str]) -> list[str]:
    """Return the names of a directory's files that are its weights, as far as the names tell."""
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    parts = [name for name in found if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    return [WHOLE] if WHOLE in found else parts or found


def tensors_in(path: Path) -> dict[str, dict[str, Any]]:
    """Return, by tensor, what the header of a safetensors file says: ``dtype``, ``shape`` and ``data_offsets``.

    Raises:
        UserError: if the file is truncated or of another format.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header: dict[str, dict[str, Any]] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
            for tensor in header.values():
                str(tensor["dtype"]), prod(map(int, tensor["shape"]))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{path} is truncated or not a safetensors file; download it again.") from None
    if path.stat().st_size < 8 + length + end:
        raise UserError(f"{path} is truncated or not a safetensors file; download it again.")
    return header
