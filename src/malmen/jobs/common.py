"""Common parts of jobs: the machine, and the model to edit."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.base import DeviceMap, Dtype, FfnPatterns, TaskName
from malmen.config.editors import EditorSettings
from malmen.data.tuples import EditTuple, read_tuples
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer, edited_layers
from malmen.errors import UserError
from malmen.models.identity import check_weights, model_digests
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model
from malmen.models.prompt_form import PromptForm
from malmen.results.run import Run
from malmen.runtime.files import replacing_directory


@dataclass(frozen=True)
class Machine:
    """Where a job runs.

    Attributes:
        device: "cpu" or "cuda".
        threads: number of CPU threads of each process, on which results depend, because threads divide sums.
        ranks: number of processes that share the job; they divide sums, too, so another number can change last digits.
    """

    device: str = "cpu"
    threads: int = 1
    ranks: int = 1

    def identity(self) -> dict[str, Any]:
        """Return what identifies the machine to which a saved state belongs: any number of ranks may go on from it."""
        return {"device": self.device, "threads": self.threads}

    def set_up(self) -> None:
        """Make torch deterministic on this device, and let transformers log errors only.

        Raises:
            UserError: if the device does not exist.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("The configuration asks for device 'cuda', but torch finds no GPU; set device: cpu.")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelSpec:
    """The model to edit, as files and settings.

    Attributes:
        name: its key in the configuration.
        label: its name in figures and messages.
        dataset: the data set of its edits.
        task: how it answers.
        dtype: precision of its weights.
        directory: its folder.
        ffn: regular expressions for the names of its FFN layers.
        sha256: expected digest of its weights; None skips the check.
        device_map: the device of each part; None if all are on one device.
        prompt: how it is asked: "plain", "chat", or a template.
    """

    name: str
    label: str
    dataset: str
    task: TaskName
    dtype: Dtype
    directory: Path
    ffn: FfnPatterns
    sha256: str | None = None
    device_map: DeviceMap | None = None
    prompt: str = "plain"

    def load(self, machine: Machine, new_head: bool = False) -> LanguageModel:
        """Load the model onto the machine's device; ``new_head`` as in :func:`malmen.models.load.load_model`.

        Raises:
            UserError: if it cannot be loaded, or has another digest.
        """
        machine.set_up()
        if self.sha256:
            check_weights(self.directory, self.sha256, str(self.directory))
        model = load_model(self.directory, self.task, self.dtype, machine.device, self.device_map, new_head)
        model.form = PromptForm.named(self.prompt, model.tokenizer)
        return model

    def layers(self, model: LanguageModel, settings: EditorSettings) -> list[EditedLayer]:
        """Return the layers that an editor edits in the loaded model, after trying whether it can edit them.

        Raises:
            UserError: if the model has no such layers, or does not compute them as the editor needs it.
        """
        layers = edited_layers(model.module, self.ffn, settings)
        if settings.captured_tokens is not None:
            check_layers(model, layers, settings.captured_tokens)
        return layers

    def named(self, editor: str, run: Run) -> str:
        """Return the name of an editor's run on the model, for progress and messages."""
        return f"{editor} on {self.label}, m = {run.n_edits}, seed {run.seed}"

    def identity(self) -> dict[str, Any]:
        """Return what identifies the model, to which a saved state belongs."""
        asked = {} if self.prompt == "plain" else {"prompt": self.prompt}
        return {**model_digests(self.directory), "task": self.task, "dtype": self.dtype, "ffn": self.ffn, **asked}


def save_model(out: Path, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model as an ordinary Hugging Face directory, whole or not at all."""
    with replacing_directory(out) as folder:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def read_enough(path: Path, runs: Sequence[Run]) -> list[EditTuple]:
    """Read the tuples of a split.

    Raises:
        UserError: if a run needs more tuples than the file has.
    """
    tuples = read_tuples(path)
    largest = max(run.n_edits for run in runs)
    if largest > len(tuples):
        raise UserError(f"{largest} edits at once are more than the {len(tuples)} tuples of {path}; lower n_edits.")
    return tuples
