"""The editors by name, as a configuration describes them."""

from collections.abc import Sequence
from pathlib import Path

from malmen.config.editors import EditorSettings
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.editing.editor import Editor, HyperNetworkEditor
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import KeyCovariance
from malmen.editing.memit.editor import MemitEditor
from malmen.errors import DivergedError
from malmen.results.training import TrainingFile


def make_editor(
    settings: EditorSettings,
    layers: Sequence[EditedLayer],
    seed: int,
    trained: Path | None = None,
    covariance: Path | None = None,
) -> Editor:
    """Make an editor ready to edit.

    Args:
        settings: the editor.
        layers: the layers that it edits, as :func:`edited_layers` returns them.
        seed: of the editor's own draws.
        trained: folder of the trained editor (method "hypernetwork").
        covariance: file of the keys' covariance that ``collect_covariance`` wrote (method "memit").

    Raises:
        DivergedError: if the editor's training diverged.
        UserError: if a file is missing, broken, or made for another model.
    """
    if isinstance(settings, FineTuningEditorSettings):
        return FineTuningEditor(layers, settings.finetuning, seed)
    if isinstance(settings, MemitEditorSettings):
        return MemitEditor(layers, settings.memit, KeyCovariance.open(required(covariance), layers), seed)
    return load_trained(required(trained), layers, settings.hypernetwork.device)


def required(path: Path | None) -> Path:
    """Return a path; raise ``ValueError`` if there is none."""
    if path is None:
        raise ValueError("this editor needs a file that was not given")
    return path


def load_trained(folder: Path, layers: Sequence[EditedLayer], device: str | None = None) -> HyperNetworkEditor:
    """Load what :func:`malmen.jobs.train_editor.train_editors` wrote onto a device, or else that of the layers.

    Raises:
        DivergedError: if the training diverged.
        UserError: if a file is missing or malformed.
    """
    training = TrainingFile.read(folder / "training.json")
    if training.reason:
        raise DivergedError(training.reason)
    return HyperNetworkEditor.load(folder / "editor.safetensors", layers, device)[0]
