"""Fetching a model from the Hugging Face hub, at a pinned commit."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from malmen.errors import UserError
from malmen.files import replacing_directory

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]
"""Configuration, weights and tokenizer; neither pickled weights nor code."""


def fetch_model(hub_id: str, revision: str, out: Path) -> None:
    """Copy a model's configuration, safetensors and tokenizer from the hub (or its local cache) into a directory.

    ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_ENDPOINT`` are honoured.

    Raises:
        UserError: if the model cannot be had.
    """
    with replacing_directory(out) as folder:
        try:
            snapshot_download(hub_id, revision=revision, allow_patterns=WANTED, local_dir=folder)
        except GatedRepoError:
            raise UserError(
                f"The model {hub_id} is gated: accept its terms on the hub and log in with 'hf auth login'."
            ) from None
        except RepositoryNotFoundError:
            raise UserError(f"The hub has no model {hub_id}; check 'pretrained' in the configuration.") from None
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            raise UserError(
                f"The model {hub_id} at {revision} cannot be fetched ({type(error).__name__}); check the network, or "
                "set 'pretrained' to a local directory."
            ) from None
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"The model {hub_id} at {revision} has no safetensors; choose a revision that has them.")
