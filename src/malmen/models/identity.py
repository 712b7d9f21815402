"""Checks of a model directory: complete files, digests and precision of the weights."""

from collections import Counter
from math import prod
from pathlib import Path

from malmen.config.base import Dtype
from malmen.errors import UserError
from malmen.runtime.files import joint_digest, sha256
from malmen.runtime.model_files import PICKLED, tensors_in, weights_files

DTYPES: dict[str, Dtype] = {"F32": "float32", "BF16": "bfloat16"}
"""Precisions that can be edited, by their names in safetensors."""
WIDER = ("F16", "F64")
"""Precisions that can be converted to these without much loss."""


def check_complete(directory: Path, name: str) -> None:
    """Check that a directory holds a configuration and complete weights; ``name`` is its name in messages.

    Raises:
        UserError: if its configuration or a file of its weights is missing or truncated.
    """
    if not (directory / "config.json").is_file():
        raise UserError(f"{name} holds no model (it has no config.json); check its name, or download it again.")
    for path in weights_files(directory, name):
        tensors_in(path)


def check_weights(directory: Path, sha256: str | None, name: str) -> str:
    """Return the digest of a model's weights.

    Raises:
        UserError: if ``sha256`` is another digest.
    """
    found = weights_digest(directory)
    if sha256 is not None and found != sha256:
        raise UserError(
            f"The weights of {name} have SHA-256 {found}, but the configuration asks for {sha256}; check the revision, "
            "or correct the sha256."
        )
    return found


def weights_digest(directory: Path) -> str:
    """Return the SHA-256 of a model's weights; of several files, that of their names and digests."""
    return joint_digest({file.name: sha256(file) for file in weights_files(directory)})


def surroundings_digest(directory: Path) -> str:
    """Return one digest of all files beside a model's weights, such as its configuration and tokenizer.

    Weights that are not the model's count neither here nor there.
    """
    weights = [path for pattern in ("*.safetensors", *PICKLED) for path in directory.glob(pattern)]
    others = set(directory.glob("[!.]*")) - {*weights, *weights_files(directory)}
    return joint_digest({file.name: sha256(file) for file in others if file.is_file()})


def model_digests(directory: Path) -> dict[str, str]:
    """Return the digests that identify a model: of its weights, and of the files beside them."""
    return {"weights": weights_digest(directory), "surroundings": surroundings_digest(directory)}


def stored_dtype(directory: Path) -> Dtype:
    """Return the precision of most of a model's weights.

    Raises:
        UserError: if it cannot be edited, such as float16, in which value gradients underflow.
    """
    counts: Counter[str] = Counter()
    for path in weights_files(directory):
        for tensor in tensors_in(path).values():
            counts[tensor["dtype"]] += prod(tensor["shape"])
    ((most, _),) = counts.most_common(1) or [("nothing", 0)]
    if most in DTYPES:
        return DTYPES[most]
    remedy = (
        "convert the model first, for example by transformers' from_pretrained(..., dtype='bfloat16') and "
        "save_pretrained"
        if most in WIDER
        else "take a version of the model that is not quantised"
    )
    raise UserError(
        f"The weights in {directory} are {most}, but only those in float32 or bfloat16 can be edited; {remedy}."
    )
