"""Checks of a model directory: complete files, digests and precision of the weights."""

import json
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from malmen.config.base import Dtype
from malmen.errors import UserError
from malmen.runtime.files import joint_digest, sha256

DTYPES: dict[str, Dtype] = {"F32": "float32", "BF16": "bfloat16"}
"""Precisions that can be edited, by their names in safetensors."""
INDEX = "model.safetensors.index.json"
"""The file that maps each tensor to its file, if the weights are split over several files."""
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("spiece.model",), ("source.spm",))
"""Sets of files that make a tokenizer; one set is enough."""
PICKLED = ("*.bin", "*.h5", "*.msgpack", "*.ckpt")
"""Weights in other formats than safetensors."""


def check_complete(directory: Path, name: str) -> None:
    """Check that a directory holds a complete model; ``name`` is its name in messages.

    Raises:
        UserError: if its configuration, a file of its weights or its tokenizer is missing or truncated.
    """
    if not (directory / "config.json").is_file():
        raise UserError(f"{name} holds no model (it has no config.json); check its name, or download it again.")
    if not any(directory.glob("*.safetensors")):
        others = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
        only = f", only {', '.join(others)}, which could run code" if others else ""
        raise UserError(
            f"{name} has no safetensors{only}; take the commit of a revision that has them (on the hub often a pull "
            "request of the conversion service), or convert it where you trust it and give the local directory."
        )
    if missing := [part for part in parts(directory, name) if not (directory / part).is_file()]:
        raise UserError(f"{name} lacks the file {missing[0]} of its weights; download it again.")
    for path in weights_files(directory):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError):
            raise UserError(f"{path} is truncated or not a safetensors file; download it again.") from None
    if not any(all((directory / file).is_file() for file in form) for form in TOKENIZERS):
        forms = ", ".join(" with ".join(form) for form in TOKENIZERS)
        raise UserError(f"{name} has no tokenizer (none of {forms}); take a revision that has one, or add it.")


def parts(directory: Path, name: str) -> list[str]:
    """Return the files of weights that the model's index names; an empty list without an index."""
    if not (directory / INDEX).is_file():
        return []
    try:
        placed = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return sorted({str(part) for part in placed.values()})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name} has an {INDEX} that cannot be read; download it again.") from None


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


def weights_files(directory: Path) -> list[Path]:
    """Return a model's safetensors files, sorted by name.

    Raises:
        UserError: if there are none.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UserError(f"{directory} holds no model (it has no safetensors); check the path, or download it again.")
    return files


def weights_digest(directory: Path) -> str:
    """Return the SHA-256 of a model's weights; of several files, that of their names and digests."""
    return joint_digest({file.name: sha256(file) for file in weights_files(directory)})


def surroundings_digest(directory: Path) -> str:
    """Return one digest of all files beside a model's weights, such as its configuration and tokenizer."""
    others = set(directory.glob("[!.]*")) - set(weights_files(directory))
    return joint_digest({file.name: sha256(file) for file in others if file.is_file()})


def model_digests(directory: Path) -> dict[str, str]:
    """Return the digests that identify a model: of its weights, and of the files beside them."""
    return {"weights": weights_digest(directory), "surroundings": surroundings_digest(directory)}


def stored_dtype(directory: Path) -> Dtype:
    """Return the precision of most of a model's weight tensors.

    Raises:
        UserError: if it cannot be edited, such as float16, in which value gradients underflow.
    """
    counts: Counter[str] = Counter()
    for path in weights_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                counts.update(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}); download it again.") from None
    ((most, _),) = counts.most_common(1) or [("nothing", 0)]
    if most not in DTYPES:
        raise UserError(f"The weights in {directory} are {most}; convert the model to float32 or bfloat16 first.")
    return DTYPES[most]
