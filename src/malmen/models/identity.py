"""Which model lies in a directory: its weights by digest, and their precision."""

from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from malmen.errors import UserError
from malmen.files import joint_digest, sha256
from malmen.settings import Dtype

DTYPES: dict[str, Dtype] = {"F32": "float32", "BF16": "bfloat16"}
"""Precisions that can be edited, as safetensors call them."""


def weights_files(directory: Path) -> list[Path]:
    """Return a model's files of weights, in order of their names.

    Raises:
        UserError: if there are none.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UserError(f"{directory} holds no model (it has no safetensors); check the path, or fetch it anew.")
    return files


def weights_digest(directory: Path) -> str:
    """Return the SHA-256 of a model's file of weights; of several files, that of their names and digests."""
    return joint_digest({file.name: sha256(file) for file in weights_files(directory)})


def stored_dtype(directory: Path) -> Dtype:
    """Return the precision of most of a model's weight tensors.

    Raises:
        UserError: if it is one that cannot be edited, such as float16, in whose range value gradients vanish.
    """
    counts: Counter[str] = Counter()
    for path in weights_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                counts.update(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as safetensors ({error}); fetch it anew.") from None
    ((most, _),) = counts.most_common(1) or [("nothing", 0)]
    if most not in DTYPES:
        raise UserError(f"The weights in {directory} are {most}; convert the model to float32 or bfloat16 first.")
    return DTYPES[most]
