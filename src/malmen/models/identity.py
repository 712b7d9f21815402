"""Checks of a model directory: complete files, digests and precision of the weights."""

from collections import Counter
from math import prod
from pathlib import Path

from malmen.config.base import Dtype
from malmen.errors import UserError
from malmen.runtime.files import joint_digest, sha256
from malmen.runtime.model_files import PICKLED, tensors_in, weights_files
from malmen.runtime.progress import logger

HALF = "F16"
"""float16, by its name in safetensors."""
EDITED_IN: dict[str, Dtype] = {"F32": "float32", "BF16": "bfloat16", HALF: "float32"}
"""In which precision weights are edited unless it is stated otherwise, by that in which they are stored."""


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


def stored_precision(directory: Path) -> str:
    """Return the precision in which most of a model's weights are stored, by its name in safetensors."""
    counts: Counter[str] = Counter()
    for path in weights_files(directory):
        for tensor in tensors_in(path).values():
            counts[tensor["dtype"]] += prod(tensor["shape"])
    ((most, _),) = counts.most_common(1) or [("nothing", 0)]
    return most


def dtype_for_editing(directory: Path, stated: Dtype | None = None) -> Dtype:
    """Return the stated precision, or else that in which the weights are stored; float32 if that is float16.

    Raises:
        UserError: if the weights are quantised, or stored in float64 and no precision is stated.
    """
    stored = stored_precision(directory)
    if stored in EDITED_IN:
        return stated or EDITED_IN[stored]
    if stored == "F64" and stated:
        return stated
    remedy = (
        "say in which of them to load these (--dtype float32, or dtype='float32' in Python)"
        if stored == "F64"
        else "take a version of the model that is not quantised"
    )
    raise UserError(
        f"The weights in {directory} are {stored}, but models are edited in float32 or bfloat16 only; {remedy}."
    )


def warn_of_half(directory: Path, dtype: Dtype) -> None:
    """Say so if a model's weights are stored in float16, in which nothing is edited, and are loaded in ``dtype``."""
    if stored_precision(directory) == HALF:
        logger.warning(
            "The weights in %s are stored in float16, whose largest number is 65,504 and in which small gradients "
            "become 0; they are loaded, edited and saved in %s%s.",
            directory,
            dtype,
            ", which rounds them" if dtype == "bfloat16" else "",
        )
