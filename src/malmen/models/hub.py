"""Fetching a model from the Hugging Face hub, at the commit that a revision stands for."""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import DryRunFileInfo, repo_folder_name

from malmen.errors import UserError, trouble
from malmen.models.identity import check_complete, check_weights
from malmen.models.pickled import PickledWeights, check_size, check_torch, convert
from malmen.models.tokenizer import load_tokenizer
from malmen.models.transfer import ProgressLines, announce, check_space, missing_bytes
from malmen.runtime.files import replacing_directory
from malmen.runtime.model_files import main_and_index, parts_of, weights_files, write_source

SURROUNDINGS = ["*.json", "*.model", "*.spm", "*.txt", "*.jinja", "*.tiktoken", "*.vocab", "*.codes", "*.bpe"]
"""Configuration, tokenizer and chat template, but no weights and no code."""
TERMS = ["LICEN[CS]E*", "NOTICE*", "USE_POLICY*"]
"""On which terms a model may be used."""
CARD = "README.md"
"""The model card."""
UNWANTED = ["*/*"]
"""Folders, which hold other formats of the model."""
COMMIT = re.compile("[0-9a-f]{40}")
"""A full commit, which always stands for the same files."""

logger = logging.getLogger("malmen")


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


def fetch_model(
    hub_id: str, revision: str, out: Path, sha256: str | None = None, pickle: PickledWeights | None = None
) -> None:
    """Copy a model's configuration, safetensors and tokenizer from the hub into a directory, with ``source.json``.

    The hub's local cache is used: files in it are not downloaded again, and interrupted downloads resume. The
    environment variables ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_ENDPOINT`` apply.

    Args:
        hub_id: id of the model on the hub.
        revision: commit of its repository; of a branch or tag, the commit is found, warned of and recorded.
        out: the directory.
        sha256: expected digest of the weights (:func:`malmen.models.identity.weights_digest`); None skips the check.
        pickle: the file of weights to convert, if the commit has no safetensors; None if it has.

    Raises:
        UserError: if the model cannot be downloaded or converted, or its weights have another digest.
    """
    if pickle:
        check_torch()
    commit = commit_of(hub_id, revision)
    if commit != revision.lower():
        logger.warning(
            "The revision %r of %s can move; it is commit %s now, which is recorded. Set it in the configuration.",
            revision,
            hub_id,
            commit,
        )
    name = f"{hub_id} at {commit}"
    cached = download(hub_id, commit, pickle, out)
    others = [file for pattern in SURROUNDINGS for file in sorted(cached.glob(pattern))]
    with replacing_directory(out) as folder:
        for file in others if pickle else [*others, *weights_files(cached)]:
            shutil.copyfile(file, folder / file.name)
        if pickle:
            convert(pickle, cached / pickle.file, folder, name)
        digest = check_weights(folder, sha256, name)
        converted = {"pickle_sha256": pickle.sha256} if pickle else {}
        write_source(folder, model=hub_id, revision=commit, **converted, weights_sha256=digest)
    unchecked = "" if sha256 or pickle else "; none was known, so set it as sha256 to have it checked from now on"
    logger.info("The weights of %s have SHA-256 %s%s", name, digest, unchecked)


def download(hub_id: str, commit: str, pickle: PickledWeights | None = None, copied_to: Path | None = None) -> Path:
    """Download one copy of a model into the hub's cache unless it is there; return its folder in the cache.

    Args:
        hub_id: id of the model on the hub.
        commit: commit of its repository.
        pickle: the file of weights, if the commit has no safetensors.
        copied_to: a directory that the disk must hold besides; None if there is none.

    Raises:
        UserError: if the model cannot be downloaded, or there is no space for it.
    """
    name = f"The model {hub_id} at {commit}"
    try:
        cached = Path(
            snapshot_download(
                hub_id,
                revision=commit,
                allow_patterns=[*SURROUNDINGS, *TERMS, CARD],
                ignore_patterns=UNWANTED,
                tqdm_class=ProgressLines,
            )
        )
        wanted = [pickle.file] if pickle else names_of_weights(hub_id, commit, cached, name)
        if listed := listing(hub_id, commit, wanted):
            if pickle:
                check_size(pickle, listed[0].file_size, f"{hub_id} at {commit}")
            cache = {Path(HF_HUB_CACHE): missing_bytes(listed)}
            copies = {copied_to: sum(file.file_size or 0 for file in listed)} if copied_to else {}
            check_space(name, {**cache, **copies})
            announce(name, listed)
        snapshot_download(hub_id, revision=commit, allow_patterns=wanted, tqdm_class=ProgressLines)
    except UserError:
        raise
    except Exception as error:  # A full disk, no network, ...: the hub's HTTP library raises errors of many kinds.
        raise refusal(error, hub_id, commit) from None
    if pickle and not (cached / pickle.file).is_file():
        raise UserError(f"{name} has no file {pickle.file}; check the revision.")
    if not pickle:
        check_complete(cached, name)
    load_tokenizer(cached, name)
    return cached


def names_of_weights(hub_id: str, commit: str, cached: Path, name: str) -> list[str]:
    """Return the files of one copy of a model's weights: the whole, or the parts that its index names.

    Args:
        hub_id: id of the model on the hub.
        commit: commit of its repository.
        cached: the folder of its other files in the hub's cache.
        name: its name in messages.

    Raises:
        UserError: if the index cannot be read.
    """
    main, index = main_and_index(cached)
    listed = listing(hub_id, commit, [main.name])
    whole = main.is_file() if listed is None else bool(listed)
    return [main.name] if whole or not index.is_file() else parts_of(index, name)


def listing(hub_id: str, commit: str, names: Sequence[str]) -> list[DryRunFileInfo] | None:
    """Return those of some files that the hub has, with their sizes; None if it cannot be asked."""
    if HF_HUB_OFFLINE:
        return None
    try:
        return snapshot_download(
            hub_id, revision=commit, allow_patterns=list(names), tqdm_class=ProgressLines, dry_run=True
        )
    except DryRunError:
        return None


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
