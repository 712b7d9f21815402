"""Where libraries keep their caches if the user's own folder for them cannot be written to.

On a cluster's node, or in a container that runs for another user, HOME often cannot be written to or does not exist.
Snakemake then ends with a traceback, and matplotlib collects its fonts again in every job.
"""

import os
import sys
import tempfile
from pathlib import Path

from malmen.errors import UserError

FALLBACK = Path(".snakemake", "cache")
"""The folder of caches in a checkout."""


def provide_caches(project: Path) -> None:
    """Let libraries keep their caches in a checkout where the user's own folders for them cannot be written to.

    Sets ``XDG_CACHE_HOME`` and ``MPLCONFIGDIR`` for this process and those that it starts. Models in the user's cache
    of the Hugging Face hub stay in use.

    Args:
        project: the checkout.

    Raises:
        UserError: if the checkout cannot be written to either.
    """
    fallback = (project / FALLBACK).absolute()
    caches, settings = user_folder("XDG_CACHE_HOME", ".cache"), user_folder("XDG_CONFIG_HOME", ".config")
    if not can_write(caches / "snakemake"):
        if not can_write(fallback):
            raise UserError(
                f"Neither the folder of caches {caches} nor {fallback} can be written to; set XDG_CACHE_HOME to a "
                "folder that can."
            )
        print(f"{caches} cannot be written to, so caches are kept in {fallback}.", file=sys.stderr)
        os.environ["XDG_CACHE_HOME"] = str(fallback)
        if (caches / "huggingface").is_dir():
            os.environ.setdefault("HF_HOME", str(caches / "huggingface"))
    if "MPLCONFIGDIR" not in os.environ and not can_write(settings / "matplotlib") and can_write(fallback):
        os.environ["MPLCONFIGDIR"] = str(fallback / "matplotlib")


def user_folder(variable: str, name: str) -> Path:
    """Return the user's folder of a kind: that of an environment variable, or else the one of this name in HOME."""
    return Path(os.environ.get(variable) or os.path.expanduser(f"~/{name}"))  # noqa: PTH111 (Path raises without HOME)


def can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, which is made if need be: permissions alone do not tell."""
    if not folder.is_absolute():
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
