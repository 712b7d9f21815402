"""Where tensors lie in safetensors files, and their bytes there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from malmen.runtime.model_files import tensors_in

Bytes = NDArray[np.uint8]

STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The precisions of tensors, by their names in safetensors."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        file: its safetensors file.
        name: its name there.
        dtype: its precision.
        start: its first byte.
        length: its size in bytes.
    """

    file: Path
    name: str
    dtype: torch.dtype
    start: int
    length: int

    def read(self, shape: torch.Size) -> Tensor:
        """Return the tensor in this shape."""
        return torch.from_numpy(self.bytes()).view(self.dtype).reshape(shape)

    def bytes(self) -> Bytes:
        """Return the tensor's bytes."""
        return np.fromfile(self.file, np.uint8, self.length, offset=self.start)


def places_in(file: Path) -> list[tuple[Place, torch.Size]]:
    """Return where the tensors of a safetensors file lie, with their shapes."""
    about = tensors_in(file)
    return [
        (Place(file, name, STORED[about[name]["dtype"]], start, length), torch.Size(about[name]["shape"]))
        for name, start, length in spans(file)
        if about[name]["dtype"] in STORED
    ]


def places_of(name: str, unedited: Tensor, places: Sequence[Place]) -> list[Place]:
    """Return the places of a tensor with these values, whose names there end most like its name in the model.

    transformers may put a prefix before names, or leave it out. Several parts of a model may hold one tensor; which of
    them transformers reads is for it to say, so all are places of the tensor. Empty if no two parts of the name agree.
    """

    def likeness(place: Place) -> tuple[bool, int]:
        return place.name == name, in_common(place.name, name)

    ranked = sorted(places, key=likeness, reverse=True)
    for alike, group in groupby(ranked, likeness):
        if alike < (False, 2):
            return []
        if found := [p for p in group if torch.equal(p.read(unedited.shape).to(unedited.dtype), unedited.cpu())]:
            return found
    return []


def in_common(first: str, second: str) -> int:
    """Return how many parts at the end of two names are the same."""
    pairs = zip(reversed(first.split(".")), reversed(second.split(".")), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(first.count("."), second.count(".")) + 1)


def bytes_of(tensor: Tensor) -> Bytes:
    """Return the bytes of a tensor as safetensors stores them."""
    found: Bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return found


def spans(file: Path) -> list[tuple[str, int, int]]:
    """Return name, first byte and size in bytes of each tensor in a safetensors file."""
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
    return [
        (name, begin + start, end - start)
        for name, about in tensors_in(file).items()
        for start, end in [about["data_offsets"]]
    ]
