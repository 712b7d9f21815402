"""A model to edit: where it lies, which weights it has, and the model itself once it is loaded."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from malmen.config.base import Dtype, TaskName
from malmen.errors import UserError, first_line
from malmen.jobs.common import Machine
from malmen.models import load
from malmen.models.hub import commit_of, download
from malmen.models.identity import dtype_for_editing, weights_digest
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PromptForm
from malmen.own_facts.prompting import form_of
from malmen.runtime.model_files import read_object
from malmen.runtime.progress import logger

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

    @property
    def form_of_edit(self) -> PromptForm | None:
        """The form in which facts were edited into the model, from the report beside it; None without a report."""
        form = read_object(self.directory / "report.json").get("form")
        if not isinstance(form, dict) or not all(isinstance(text, str) for text in form.values()):
            return None
        try:
            return PromptForm(**form)
        except TypeError:
            return None

    def load(self, device: str, template: str | None = None, raw: bool = False) -> "LoadedModel":
        """Load the model onto "cpu", "cuda" or ("auto") a GPU if there is one; how it is asked as in :func:`form_of`.

        Raises:
            UserError: if the model cannot be loaded, there is no such device, or the template does not fit.
        """
        model = load.load_model(self.directory, self.task, self.dtype, usable_device(device))
        model.form = form_of(model, template, raw)
        return LoadedModel(self, model, form_is_chosen=template is not None or raw)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be edited.

    Attributes:
        source: where it comes from.
        language_model: the model, its tokenizer and how it answers, as the editors use them.
        form_is_chosen: whether the user chose how it is asked.
    """

    source: ModelSource
    language_model: LanguageModel
    form_is_chosen: bool = False

    @contextmanager
    def asked_in(self, form: PromptForm) -> Iterator[None]:
        """Ask the model in a form, such as that of an editor's training, inside the ``with`` block.

        Raises:
            UserError: if the user chose another form.
        """
        usual = self.language_model.form
        if self.form_is_chosen and form != usual:
            raise UserError(
                f"The editor was trained with prompts in the form {form}, and not {usual}; leave out --template and "
                "--raw (in Python, template and raw)."
            )
        self.language_model.form = form
        try:
            yield
        finally:
            self.language_model.form = usual

    def asked_as_edited(self, form: PromptForm | None) -> AbstractContextManager[None]:
        """In the ``with`` block, ask the model as the user chose, or else in the form of its edit if that is known."""
        usual = self.language_model.form
        if form is None or self.form_is_chosen:
            return self.asked_in(usual)
        if form != usual:
            logger.info("%s is asked as it was edited, in the form %s.", self.source.name, form)
        return self.asked_in(form)

    @property
    def module(self) -> PreTrainedModel:
        """The Hugging Face model."""
        return self.language_model.module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.language_model.tokenizer


def usable_device(device: str) -> str:
    """Return "cpu" or "cuda", the device that "cpu", "cuda" or "auto" means here, and set torch up for it.

    Raises:
        UserError: if there is no such device.
    """
    if device not in DEVICES:
        raise UserError(f"The device is {device!r} but must be one of {', '.join(DEVICES)}.")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("Device 'cuda' needs a GPU, but torch finds none; use device 'cpu'.")
    chosen = "cuda" if available and device == "auto" else device.replace("auto", "cpu")
    Machine(chosen, torch.get_num_threads()).set_up()
    return chosen


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
    directory, commit = find_directory(directory_or_id, revision)
    weights = weights_digest(directory)
    return ModelSource(
        str(directory_or_id),
        commit,
        directory,
        weights,
        task or usual_task(directory),
        dtype_for_editing(directory, dtype),
    )


def find_directory(directory_or_id: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """Return the directory of a model, downloaded if it is on the hub, and then its commit there.

    Raises:
        UserError: if there is no such model, or it cannot be downloaded.
    """
    directory = Path(directory_or_id)
    if not directory.is_dir():
        commit = commit_on_hub(str(directory_or_id), revision)
        return download(str(directory_or_id), commit), commit
    if revision is not None:
        raise UserError(
            f"{directory} is a directory, which has no revisions; leave out the revision {revision!r}, or rename "
            "the directory if you mean a model of the Hugging Face hub."
        )
    return directory, None


def commit_on_hub(hub_id: str, revision: str | None) -> str:
    """Return the commit of a model on the hub; say which it is if the user gave none, or a branch or tag.

    Raises:
        UserError: if there is no such model or revision.
    """
    path = Path(hub_id)
    if path.exists() or path.is_absolute() or hub_id.startswith((".", "~")) or len(path.parts) > 2:
        raise UserError(f"There is no directory {hub_id}; give a model's directory, or its id on the hub.")
    try:
        commit = commit_of(hub_id, revision or "main")
    except UserError as error:
        raise UserError(f"There is no directory {hub_id}. {error}" if revision is None else str(error)) from None
    if commit != (revision or "main").lower():
        logger.info(
            "%s of %s is commit %s now; to edit the same model later, add --revision %s (in Python, revision=...).",
            revision or "main",
            hub_id,
            commit,
            commit,
        )
    return commit


def usual_task(directory: Path) -> TaskName:
    """Return the task that the architecture of the model in a directory is used for.

    Raises:
        UserError: if the directory holds no model.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # A broken file makes transformers raise errors of any kind.
        raise UserError(
            f"{directory} has no config.json that transformers can read ({first_line(error)}); give the directory of a "
            "model that transformers has without code of its own."
        ) from None
    if config.is_encoder_decoder:
        return "sequence_to_sequence"
    return "fact_checking" if config.model_type == "bert" else "question_answering"
