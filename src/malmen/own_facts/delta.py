"""What an edit changed, as one file: it turns the unedited model's files into the edited ones, and back, byte by byte.

For each edited tensor it holds the exclusive or (XOR) of its bytes before and after the edit. The same bytes lead
either way, and exactly, which a subtraction of rounded numbers would not. It also holds each layer's shift S, (d_in,
d_out), and the small files that only the edited or only the unedited model has. The header names the SHA-256 of files.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmen.config.base import Dtype
from malmen.errors import UserError
from malmen.own_facts.stored import Bytes, spans
from malmen.runtime.files import joint_digest, replacing
from malmen.runtime.model_files import TEMPLATES

FILE = "edit.delta"
"""Its name beside an edited model. The format is safetensors, but vLLM and others read every ``*.safetensors`` in a
folder without an index as weights of the model."""
HEADER = "malmen_edit"
CHUNK = 1 << 22
"""Bytes of a file that are in memory at once."""

Side = Literal["before", "after"]
"""The unedited model, or the edited one."""


def name_of_a_file(name: str) -> str:
    """Return a name; raise ``ValueError`` if it leads out of the model's folder: a delta may come from a stranger."""
    own = name.removeprefix(f"{TEMPLATES}/")
    if not own or own in (".", "..") or {"/", "\\", "\0"} & set(own):
        raise ValueError(f"{name!r} is not the name of a file in a model's folder")
    return name


FileName = Annotated[str, AfterValidator(name_of_a_file)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A part of what a delta's header says."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class StoredTensor(Part):
    """An edited tensor as the files hold it: its file, its name there, and the layer of the model that it is for."""

    file: FileName
    name: str
    layer: str

    @property
    def key(self) -> str:
        """What its XOR is called in the delta."""
        return f"xor/{self.file}/{self.name}"


class RebuiltTensor(Part):
    """A tensor of an unedited file that is to be rebuilt where transformers wrote all weights in its own way.

    Attributes:
        name: its name, in both models.
        dtype: its precision in the unedited file, by its name in safetensors.
        source: the edited model's file that has it, perhaps in a wider precision; None if the delta has its bytes.
    """

    name: str
    dtype: str
    source: FileName | None


class Header(Part):
    """What a delta is for.

    Attributes:
        model: directory or hub id of the unedited model.
        revision: commit of the hub's repository; None for a directory.
        dtype: precision in which the weights were edited.
        editor: the editor, as in the report.
        weights_before: SHA-256 of every file of the unedited weights.
        weights_after: the same of the edited ones.
        tensors: the edited tensors; none where all weights were written anew.
        rebuilt: by file of the unedited weights, its tensors in order where all weights were written anew; else empty.
        copied: SHA-256 of the files that are the same on both sides.
        before: names of the files that only the unedited model has.
        after: names of the files that only the edited model has, besides the delta.
    """

    model: str
    revision: str | None
    dtype: Dtype
    editor: str
    weights_before: dict[FileName, Digest]
    weights_after: dict[FileName, Digest]
    tensors: list[StoredTensor]
    rebuilt: dict[FileName, list[RebuiltTensor]]
    copied: dict[FileName, Digest]
    before: list[FileName]
    after: list[FileName]

    @model_validator(mode="after")
    def check_files(self) -> "Header":
        """Raise ``ValueError`` unless the files of weights are those that the tensors are for."""
        if self.rebuilt and self.rebuilt.keys() != self.weights_before.keys():
            raise ValueError("the rebuilt files are not those of the unedited weights")
        if not self.rebuilt and self.weights_before.keys() != self.weights_after.keys():
            raise ValueError("the edited files are not those of the unedited weights")
        return self

    def weights(self, side: Side) -> dict[str, str]:
        """Return the SHA-256 of every file of the weights of one side."""
        return self.weights_before if side == "before" else self.weights_after

    def digest(self, side: Side) -> str:
        """Return the digest of all weights (:func:`malmen.models.identity.weights_digest`) of one side."""
        return joint_digest(self.weights(side))

    def keys(self) -> list[str]:
        """Return what the delta's entries are called, besides the shifts."""
        rebuilt = [
            key_of_raw(file, tensor.name)
            for file, found in self.rebuilt.items()
            for tensor in found
            if not tensor.source
        ]
        return [
            *(tensor.key for tensor in self.tensors),
            *(f"head/{file}" for file in self.rebuilt),
            *rebuilt,
            *(f"before/{name}" for name in self.before),
            *(f"after/{name}" for name in self.after),
        ]


def key_of_raw(file: str, tensor: str) -> str:
    """Return what the bytes of a tensor that cannot be rebuilt otherwise are called in a delta."""
    return f"raw/{file}/{tensor}"


@dataclass(frozen=True)
class Delta:
    """A delta's file, of which each tensor is read when it is asked for, to save memory."""

    path: Path
    header: Header

    @classmethod
    def open(cls, path: Path) -> "Delta":
        """Read the header of a delta.

        Raises:
            UserError: if the file is not a delta.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = Header.model_validate_json((file.metadata() or {})[HEADER])
                if missing := set(header.keys()) - set(file.keys()):
                    raise KeyError(min(missing))
        except (OSError, SafetensorError, KeyError, ValidationError) as error:
            raise UserError(
                f"{path} cannot be read as the delta of an edit ({type(error).__name__}); give the {FILE} that "
                "malmen edit wrote."
            ) from None
        return cls(path, header)

    def read(self, key: str) -> Bytes:
        """Return an entry of the file as bytes, which stay valid when the file is closed."""
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor.flatten().view(torch.uint8).numpy().copy()

    def changes_in(self, file: str, source: Path) -> "Changes":
        """Return, by the first byte in a file of weights, the XOR of each edited tensor in it.

        Raises:
            UserError: if the file does not have one of the tensors in the delta's size.
        """
        places = {name: (start, length) for name, start, length in spans(source)}
        found = {}
        for tensor in self.header.tensors:
            if tensor.file == file:
                changed = self.read(tensor.key)
                start, length = places.get(tensor.name, (0, None))
                if length != len(changed):
                    raise UserError(
                        f"{self.path} is damaged: {tensor.name} does not have its size in {source}; get it again."
                    )
                found[start] = changed
        return found

    def own_files(self, side: Side) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file that only one side has."""
        for name in self.header.before if side == "before" else self.header.after:
            yield name, self.read(f"{side}/{name}").tobytes()


Changes = Mapping[int, Bytes]
"""By the first byte in a file, bytes to combine with those of the file by XOR."""


def write_delta(path: Path, header: Header, entries: Mapping[str, Bytes], shifts: Mapping[str, Tensor]) -> None:
    """Write a delta, whole or not at all; equal edits give equal bytes.

    Args:
        path: the file.
        header: what it is for.
        entries: the bytes of each of :meth:`Header.keys`.
        shifts: by layer its shift S, (d_in, d_out), in the precision of the edit.
    """
    tensors = {name: torch.from_numpy(entries[name]) for name in header.keys()}  # noqa: SIM118 (not a dict)
    tensors |= {f"shift/{name}": shift.detach().cpu().contiguous() for name, shift in shifts.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: header.model_dump_json()})


def write_changed(source: Path, changes: Changes, target: Path | None) -> str:
    """Copy a file with some of its bytes changed and return the SHA-256 of the copy; little of it is ever in memory.

    Args:
        source: the file.
        changes: which bytes change.
        target: the copy; None if only its digest is wanted.
    """
    digest, buffer, start = hashlib.sha256(), bytearray(CHUNK), 0
    with source.open("rb") as read, target.open("wb") if target else nullcontext() as write:
        while size := read.readinto(buffer):
            content = np.frombuffer(buffer, np.uint8, size)
            for first, changed in changes.items():
                begin, end = max(first, start), min(first + len(changed), start + size)
                if begin < end:
                    content[begin - start : end - start] ^= changed[begin - first : end - first]
            digest.update(content.data)
            if write:
                write.write(content.data)
            start += size
    return digest.hexdigest()
