"""Fetching a model from the Hugging Face hub, at the commit that a revision stands for."""

import json
import logging
import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name

from malmen.errors import UserError, trouble
from malmen.models.identity import check_complete, check_weights
from malmen.models.tokenizer import load_tokenizer
from malmen.runtime.files import replacing_directory
from malmen.runtime.model_files import SOURCE, WHOLE, main_and_index, parts_of, weights_files

SURROUNDINGS = ["*.json", "*.model", "*.spm", "*.txt", "*.jinja", "*.tiktoken", "*.vocab", "*.codes", "*.bpe"]
"""Configuration, tokenizer and chat template, but no weights and no code."""
UNWANTED = ["*/*"]
"""Folders, which hold other formats of the model."""
COMMIT = re.compile("[0-9a-f]{40}")
"""A full commit, which always stands for the same files."""

logger = logging.getLogger("malmen")


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


def commit_of(hub_id: str, revision: str) -> str:
    """Return the full commit that a branch, a tag or a short commit stands for now, or stood for when it was cached.

    Raises:
        UserError: if the hub has no such model or revision, or it can neither be asked nor found in the cache.
    """
    if COMMIT.fullmatch(revision.lower()):
        return revision.lower()
    if not HF_HUB_OFFLINE:
        try:
            if found := HfApi().model_info(hub_id, revision=revision).sha:
                return found
        except (GatedRepoError, RepositoryNotFoundError, HFValidationError, RevisionNotFoundError) as error:
            raise refusal(error, hub_id, revision) from None
        except Exception as error:  # No network: the hub's HTTP library raises errors of many kinds.
            if found := cached_commit(hub_id, revision):
                return found
            raise refusal(error, hub_id, revision) from None
    if found := cached_commit(hub_id, revision):
        return found
    raise refusal(FileNotFoundError(), hub_id, revision)


def cached_commit(hub_id: str, revision: str) -> str | None:
    """Return the commit that a revision stood for when it was last downloaded; None if it never was."""
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    reference = folder / "refs" / revision
    if reference.is_file() and COMMIT.fullmatch(commit := reference.read_text(encoding="utf-8").strip()):
        return commit
    begun = [path.name for path in (folder / "snapshots").glob("*") if path.name.startswith(revision.lower())]
    return begun[0] if len(begun) == 1 and re.fullmatch("[0-9a-fA-F]{7,}", revision) else None


def fetch_model(hub_id: str, revision: str, out: Path, sha256: str | None = None) -> None:
    """Copy a model's configuration, safetensors and tokenizer from the hub into a directory, with ``source.json``.

    The hub's local cache is used: files in it are not downloaded again, and interrupted downloads resume. The
    environment variables ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_ENDPOINT`` apply.

    Args:
        hub_id: id of the model on the hub.
        revision: commit of its repository; of a branch or tag, the commit is found, warned of and recorded.
        out: the directory.
        sha256: expected digest of the weights (:func:`malmen.models.identity.weights_digest`); None skips the check.

    Raises:
        UserError: if the model cannot be downloaded, or its weights have another digest.
    """
    commit = commit_of(hub_id, revision)
    if commit != revision.lower():
        logger.warning(
            "The revision %r of %s can move; it is commit %s now, which is recorded. Set it in the configuration.",
            revision,
            hub_id,
            commit,
        )
    cached = download(hub_id, commit)
    others = [file for pattern in SURROUNDINGS for file in sorted(cached.glob(pattern))]
    with replacing_directory(out) as folder:
        for file in [*others, *weights_files(cached)]:
            shutil.copyfile(file, folder / file.name)
        digest = check_weights(folder, sha256, f"{hub_id} at {commit}")
        record = {"model": hub_id, "revision": commit, "weights_sha256": digest}
        (folder / SOURCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    logger.info("The weights of %s at %s have SHA-256 %s", hub_id, commit, digest)


def download(hub_id: str, commit: str) -> Path:
    """Download a model into the hub's cache unless it is there; return its folder in the cache.

    Raises:
        UserError: if the model cannot be downloaded.
    """
    name = f"The model {hub_id} at {commit}"
    try:
        cached = Path(
            snapshot_download(hub_id, revision=commit, allow_patterns=[*SURROUNDINGS, WHOLE], ignore_patterns=UNWANTED)
        )
        main, index = main_and_index(cached)
        if not main.is_file():
            parts = parts_of(index, name) if index.is_file() else [main.name]
            snapshot_download(hub_id, revision=commit, allow_patterns=parts)
    except UserError:
        raise
    except Exception as error:  # A full disk, no network, ...: the hub's HTTP library raises errors of many kinds.
        raise refusal(error, hub_id, commit) from None
    check_complete(cached, name)
    load_tokenizer(cached, name)
    return cached


def refusal(error: Exception, hub_id: str, revision: str) -> UserError:
    """Return a sentence for an error of the hub's library."""
    if isinstance(error, GatedRepoError):
        return UserError(f"The model {hub_id} is gated: accept its terms on the hub and log in with 'hf auth login'.")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return UserError(f"The hub has no model {hub_id}; check its name.")
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"The model {hub_id} has no revision {revision}; check the revision.")
    if refused := trouble(error):
        place = f"The model {hub_id} at {revision} cannot be put into the hub's cache"
        return UserError(f"{place}: {refused.removesuffix('.')}, or set HF_HOME to another folder.")
    remedy = "unset HF_HUB_OFFLINE, because it is not in the cache" if HF_HUB_OFFLINE else "check the network"
    return UserError(
        f"The model {hub_id} at {revision} cannot be fetched ({type(error).__name__}); {remedy}, or use a local "
        "directory."
    )
