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
"""The file beside downloaded weights that records their source and SHA-256."""
WANTED = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
"""Configuration, weights and tokenizer, but no pickled weights and no code."""
UNWANTED = ["*/*"]
"""Folders, which hold other formats of the model."""


def pinned(hub_id: str, revision: str | None, key: str) -> str:
    """Return the revision; ``key`` is its key in the configuration.

    Raises:
        UserError: if the revision is None.
    """
    if revision is None:
        raise UserError(
            f"{key} is not set; set it to a commit of {hub_id} on the Hugging Face hub, or check that the local "
            f"directory {hub_id} exists."
        )
    return revision


def fetch_model(hub_id: str, revision: str, out: Path, sha256: str | None = None) -> None:
    """Copy a model's configuration, safetensors and tokenizer from the hub into a directory, with ``source.json``.

    The hub's local cache is used: files in it are not downloaded again, and interrupted downloads resume. The
    environment variables ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_ENDPOINT`` apply.

    Args:
        hub_id: id of the model on the hub.
        revision: commit of its repository.
        out: the directory.
        sha256: expected digest of the weights (:func:`malmen.models.identity.weights_digest`); None skips the check.

    Raises:
        UserError: if the model cannot be downloaded, or its weights have another digest.
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
    """Download a model into the hub's cache unless it is there; return its folder in the cache.

    Raises:
        UserError: if the model cannot be downloaded.
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
        raise UserError(f"The model {hub_id} has no revision {revision}; check the revision.") from None
    except Exception as error:  # No network, a full disk, ...: the hub's HTTP library raises errors of many kinds.
        remedy = "unset HF_HUB_OFFLINE, because it is not in the cache" if HF_HUB_OFFLINE else "check the network"
        raise UserError(
            f"The model {hub_id} at {revision} cannot be fetched ({type(error).__name__}); {remedy}, or use a local "
            "directory."
        ) from None
    check_complete(Path(cached), f"The model {hub_id} at {revision}")
    return cached
