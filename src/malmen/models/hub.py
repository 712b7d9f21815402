"""Fetching a model from the Hugging Face hub, at a pinned commit."""

import json
import logging
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from malmen.errors import UserError
from malmen.models.identity import check_complete, check_weights
from malmen.runtime.files import replacing_directory

RECORD = "source.json"
"""Beside fetched weights: where they come from, and their SHA-256."""
WANTED = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
"""Configuration, weights and tokenizer; neither pickled weights nor code."""
UNWANTED = ["*/*"]
"""Other forms of the model lie in folders."""


def pinned(hub_id: str, revision: str | None, key: str) -> str:
    """Return the revision; ``key`` is where a configuration sets it.

    Raises:
        UserError: if there is none.
    """
    if revision is None:
        raise UserError(
            f"{key} is not set: if {hub_id} is an id of the Hugging Face hub, look up the commit of its repository on "
            "its page there and set it, so that the weights cannot change; a local directory needs none but must exist."
        )
    return revision


def fetch_model(hub_id: str, revision: str, out: Path, sha256: str | None = None) -> None:
    """Copy a model's configuration, safetensors and tokenizer from the hub into a directory, with ``source.json``.

    They pass through the hub's local cache: what is there is not fetched again, and a broken transfer is resumed.
    ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_ENDPOINT`` are honoured.

    Args:
        hub_id: the model.
        revision: the commit.
        out: the directory.
        sha256: what the digest of the weights must be (:func:`malmen.models.identity.weights_digest`), if known.

    Raises:
        UserError: if the model cannot be had, or is not the one asked for.
    """
    cached = Path(download(hub_id, revision))
    files = [file for pattern in WANTED for file in sorted(cached.glob(pattern))]
    with replacing_directory(out) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        digest = check_weights(folder, sha256, f"{hub_id} at {revision}")
        record = {"model": hub_id, "revision": revision, "weights_sha256": digest}
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    logging.getLogger("malmen").info("The weights of %s at %s have SHA-256 %s", hub_id, revision, digest)


def download(hub_id: str, revision: str) -> str:
    """Return the folder of the hub's cache that holds a model, fetched unless it is there.

    Raises:
        UserError: if the model cannot be had.
    """
    try:
        cached = snapshot_download(hub_id, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    except GatedRepoError:
        raise UserError(
            f"The model {hub_id} is gated: accept its terms on the hub and log in with 'hf auth login'."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"The hub has no model {hub_id}; check its name.") from None
    except RevisionNotFoundError:
        raise UserError(f"The model {hub_id} has no revision {revision}; check it.") from None
    except Exception as error:  # No network, a full disk, ...: the hub's HTTP library has more errors than it names.
        remedy = "HF_HUB_OFFLINE is set and it is not in the cache: unset it" if HF_HUB_OFFLINE else "check the network"
        raise UserError(
            f"The model {hub_id} at {revision} cannot be fetched ({type(error).__name__}); {remedy}, or use a local "
            "directory."
        ) from None
    check_complete(Path(cached), f"The model {hub_id} at {revision}")
    return cached
