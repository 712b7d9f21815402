"""A model to edit: where it lies, which weights it has, and the model itself once it is loaded."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.base import Dtype, TaskName
from malmen.errors import UserError
from malmen.jobs.common import Machine
from malmen.models import load
from malmen.models.hub import download
from malmen.models.identity import stored_dtype, weights_digest
from malmen.models.language_model import LanguageModel

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ModelSource:
    """A model that is found but not loaded yet.

    Attributes:
        name: the directory or the hub id that the user gave.
        revision: commit of the hub's repository; None for a directory.
        directory: the model's files, on a hub id those in the hub's cache.
        weights: SHA-256 of the weights (:func:`malmen.models.identity.weights_digest`).
        task: how the model answers.
        dtype: precision in which the weights are edited.
    """

    name: str
    revision: str | None
    directory: Path
    weights: str
    task: TaskName
    dtype: Dtype

    def load(self, device: str) -> "LoadedModel":
        """Load the model onto "cpu", "cuda" or ("auto") a GPU if there is one.

        Raises:
            UserError: if the model cannot be loaded, or there is no such device.
        """
        if device not in DEVICES:
            raise UserError(f"The device is {device!r} but must be one of {', '.join(DEVICES)}.")
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise UserError("Device 'cuda' needs a GPU, but torch finds none; use device 'cpu'.")
        chosen = "cuda" if available and device == "auto" else device.replace("auto", "cpu")
        Machine(chosen, torch.get_num_threads()).set_up()
        return LoadedModel(self, load.load_model(self.directory, self.task, self.dtype, chosen))


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be edited.

    Attributes:
        source: where it comes from.
        language_model: the model, its tokenizer and how it answers, as the editors use them.
    """

    source: ModelSource
    language_model: LanguageModel

    @property
    def module(self) -> PreTrainedModel:
        """The Hugging Face model."""
        return self.language_model.module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.language_model.tokenizer


def find_model(
    directory_or_id: str | Path,
    revision: str | None = None,
    task: TaskName | None = None,
    dtype: Dtype | None = None,
) -> ModelSource:
    """Find a model in a directory, or download it from the Hugging Face hub; arguments as in `malmen.load_model`.

    Raises:
        UserError: if there is no such model, or it cannot be downloaded.
    """
    directory = Path(directory_or_id)
    if directory.is_dir():
        revision = None
    elif revision is None:
        raise UserError(
            f"There is no directory {directory}; if it is an id of the Hugging Face hub, add the commit of its "
            "repository as --revision (in Python, revision=...)."
        )
    else:
        directory = Path(download(str(directory_or_id), revision))
    weights = weights_digest(directory)
    return ModelSource(
        str(directory_or_id),
        revision,
        directory,
        weights,
        task or usual_task(directory),
        dtype or stored_dtype(directory),
    )


def usual_task(directory: Path) -> TaskName:
    """Return the task that the architecture of the model in a directory is used for.

    Raises:
        UserError: if the directory holds no model.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # A broken file makes transformers raise errors of any kind.
        raise UserError(
            f"{directory} has no readable config.json ({type(error).__name__}); give the directory of a model."
        ) from None
    if config.is_encoder_decoder:
        return "sequence_to_sequence"
    return "fact_checking" if config.model_type == "bert" else "question_answering"
