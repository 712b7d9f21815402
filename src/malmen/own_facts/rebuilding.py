"""Rebuilding the unedited files of weights from edited ones that transformers wrote in its own way.

Most tensors have the same name there, and the same numbers, perhaps in a wider precision, as those of a float16 model
that is edited in float32. These are rounded back. The bytes of all others, the edited ones among them, are kept.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from malmen.own_facts.delta import RebuiltTensor, StoredTensor, key_of_raw
from malmen.own_facts.stored import STORED, Bytes, bytes_of, spans
from malmen.runtime.files import sha256
from malmen.runtime.model_files import tensors_in

MOST_KEPT = 0.5
"""The largest share of the unedited weights that is worth keeping."""


@dataclass(frozen=True)
class Turned:
    """How the weights' files before and after an edit are made of each other.

    Attributes:
        digests: SHA-256 of each edited file.
        tensors: the tensors that were edited in place.
        rebuilt: the tensors of each unedited file, if all weights were written anew.
        entries: by their names in the delta, the bytes that are needed.
    """

    digests: dict[str, str]
    tensors: list[StoredTensor]
    rebuilt: dict[str, list[RebuiltTensor]]
    entries: dict[str, Bytes]


def turn_back(unedited: Sequence[Path], edited: Sequence[Path]) -> Turned | None:
    """Return how unedited files are rebuilt from edited ones; None if too much of them would have to be kept."""
    sources = {name: file for file in edited for name in tensors_in(file)}
    turned = Turned({file.name: sha256(file) for file in edited}, [], {}, {})
    left = MOST_KEPT * sum(file.stat().st_size for file in unedited)
    for file in unedited:
        about = tensors_in(file)
        tensors = turned.rebuilt[file.name] = list[RebuiltTensor]()
        places = sorted(spans(file), key=lambda place: (place[1], place[2]))
        turned.entries[f"head/{file.name}"] = np.fromfile(
            file, np.uint8, min([start for _, start, _ in places] or [-1])
        )
        for name, start, length in places:
            content = np.fromfile(file, np.uint8, length, offset=start)
            tensor = RebuiltTensor(name=name, dtype=about[name]["dtype"], source=None)
            if name in sources:
                found = tensor.model_copy(update={"source": sources[name].name})
                tensor = found if np.array_equal(rounded_back(found, sources[name]), content) else tensor
            if tensor.source is None:
                turned.entries[key_of_raw(file.name, name)] = content
                left -= length
                if left < 0:
                    return None
            tensors.append(tensor)
        if write_rebuilt(file.name, tensors, turned.entries.__getitem__, edited[0].parent, None) != sha256(file):
            return None  # The tensors leave gaps in the file.
    return turned


def rounded_back(tensor: RebuiltTensor, source: Path) -> Bytes:
    """Return the bytes of a tensor of an edited file in the precision of the unedited one."""
    with safe_open(source, framework="pt") as file:
        found = file.get_tensor(tensor.name)
    return bytes_of(found.to(STORED.get(tensor.dtype, found.dtype))).copy()


def write_rebuilt(
    file: str, tensors: Sequence[RebuiltTensor], entry: Callable[[str], Bytes], folder: Path, target: Path | None
) -> str:
    """Rebuild an unedited file and return its SHA-256; one tensor at a time is in memory.

    Args:
        file: its name.
        tensors: its tensors, in order.
        entry: gives the bytes of the delta's entries.
        folder: the edited model.
        target: where to write it; None if only its digest is wanted.
    """
    digest = hashlib.sha256()
    with target.open("wb") if target else nullcontext() as write:
        for tensor in (None, *tensors):
            if tensor is None:
                content = entry(f"head/{file}")
            elif tensor.source is None:
                content = entry(key_of_raw(file, tensor.name))
            else:
                content = rounded_back(tensor, folder / tensor.source)
            digest.update(content.data)
            if write:
                write.write(content.data)
    return digest.hexdigest()
