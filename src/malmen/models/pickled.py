"""Weights that exist only as a pickle: checked before they are opened, and converted to safetensors once.

A pickle can run code. It is opened only where its size and its SHA-256 are known beforehand, by torch's restricted
loading alone, and only by a torch whose restricted loading is safe.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from malmen.config.base import Dtype
from malmen.errors import UserError, first_line, trouble
from malmen.runtime.files import sha256
from malmen.runtime.model_files import INDEX
from malmen.runtime.progress import progress

SAFE_SINCE = (2, 10)
"""The first version of torch whose restricted loading has no known flaw (CVE-2026-24747)."""
SHARD = "2GB"
"""The most that tensors of one file of safetensors take in the precision of the pickle."""
WHOLE_NUMBERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""The types of buffers, which stay as they are."""
METADATA = "__metadata__"
"""The name that safetensors keeps for what is no tensor."""


@dataclass(frozen=True)
class PickledWeights:
    """A file of weights as the configuration knows it.

    Attributes:
        file: its name.
        bytes: its size.
        sha256: its digest.
        dtype: the precision in which the weights are kept.
    """

    file: str
    bytes: int
    sha256: str
    dtype: Dtype


def check_torch() -> None:
    """Refuse a torch whose restricted loading is not safe.

    Raises:
        UserError: if this torch is one.
    """
    version = torch.__version__
    if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < SAFE_SINCE:
        raise UserError(
            f"torch {version} cannot open pickled weights safely (CVE-2026-24747); install torch "
            f"{'.'.join(map(str, SAFE_SINCE))} or newer."
        )


def check_size(weights: PickledWeights, size: int | None, name: str) -> None:
    """Refuse a file of another size than the configuration states.

    Raises:
        UserError: if it has one.
    """
    if size is not None and size != weights.bytes:
        raise UserError(
            f"The file {weights.file} of {name} has {size:,} bytes, but the configuration asks for {weights.bytes:,}; "
            "check the revision, or take the file from elsewhere."
        )


def convert(weights: PickledWeights, source: Path, folder: Path, name: str) -> None:
    """Convert pickled weights to safetensors of the stated precision, with an index if they are several files.

    One file of safetensors is in memory at a time, beside the pickle, which is mapped from the disk. Pickles of the
    oldest form, from before torch 1.6, cannot be mapped: those are read as a whole.

    Args:
        weights: what is known of the file.
        source: the file.
        folder: where the safetensors go.
        name: name of the model in messages.

    Raises:
        UserError: if torch is too old, the file is another one or holds more than tensors.
    """
    check_torch()
    check_size(weights, source.stat().st_size, name)
    if (found := sha256(source)) != weights.sha256:
        raise UserError(
            f"The file {weights.file} of {name} has SHA-256 {found}, but the configuration asks for {weights.sha256}; "
            "it was not opened. Download it again, or check the revision."
        )
    tensors = tensors_of(source, name)
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=SHARD)
    sizes = {file: len(names) for file, names in split.filename_to_tensors.items()}
    what = f"Converting {weights.file} to safetensors"
    for file in progress(sizes, len(tensors), what, weight=sizes.__getitem__, unit="tensors", brief=True):
        part = {key: kept(tensors.pop(key), weights.dtype) for key in split.filename_to_tensors[file]}
        save_file(part, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": {}, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def tensors_of(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a pickle by name.

    Raises:
        UserError: if it holds anything else, or cannot be read.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # Damaged pickles raise errors of many kinds.
        if refused := trouble(error):
            raise UserError(refused) from None
        raise UserError(
            f"The file {path.name} of {name} is damaged, or holds more than tensors ({first_line(error)[:100]}); "
            "nothing of it was run. Take the model from elsewhere."
        ) from None
    if isinstance(found, dict) and found and all(map(is_named_tensor, found.items())):
        if unusual := [key for key, tensor in found.items() if key == METADATA or not is_plain(tensor)]:
            raise UserError(
                f"The file {path.name} of {name} holds {unusual[0][:100]!r}, which safetensors cannot keep as it is; "
                "take the model from elsewhere."
            )
        return dict(found)
    raise UserError(
        f"The file {path.name} of {name} holds something else than a model's tensors by name; take the model from "
        "elsewhere."
    )


def is_named_tensor(item: tuple[object, object]) -> bool:
    """Return whether an entry of a mapping is a tensor with its name."""
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is an array of real numbers, all in the file: not sparse, no view of fewer."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    is_number = tensor.is_floating_point() or tensor.dtype in WHOLE_NUMBERS
    return is_number and tensor.nbytes <= tensor.untyped_storage().nbytes()


def kept(tensor: torch.Tensor, dtype: Dtype) -> torch.Tensor:
    """Return a copy of a tensor, in memory of its own; one of real numbers in the given precision."""
    wanted = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(wanted, copy=True).contiguous()
