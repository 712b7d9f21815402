"""The editors by method name. Another editor is one module with its class, and one entry in :data:`EDITORS`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from malmen.config.settings import EditorSettings
from malmen.editing.editor import Editor
from malmen.editing.editor_file import load_trained
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import KeyCovariance
from malmen.editing.memit.editor import MemitEditor

Make = Callable[[EditorSettings, Sequence[EditedLayer], int, Path | None], Editor]
"""Makes an editor from its settings, its layers, the seed of its random draws, and the file or folder that it needs."""


def hyper_network(settings: EditorSettings, layers: Sequence[EditedLayer], _seed: int, file: Path | None) -> Editor:
    """Load MALMEN or MEND from the folder of a finished training."""
    return load_trained(given(file), layers, settings.hypernetwork.device)


def fine_tuning(settings: EditorSettings, layers: Sequence[EditedLayer], seed: int, _file: Path | None) -> Editor:
    """Make FT, which needs no file."""
    return FineTuningEditor(layers, settings.finetuning, seed)


def memit(settings: EditorSettings, layers: Sequence[EditedLayer], seed: int, file: Path | None) -> Editor:
    """Make MEMIT with the file of its keys' covariance."""
    return MemitEditor(layers, settings.memit, KeyCovariance.open(given(file), layers), seed)


EDITORS: Mapping[str, Make] = {"hypernetwork": hyper_network, "finetuning": fine_tuning, "memit": memit}


def make_editor(settings: EditorSettings, layers: Sequence[EditedLayer], seed: int, file: Path | None = None) -> Editor:
    """Make an editor that is ready to edit.

    Args:
        settings: the editor's settings.
        layers: the layers that it edits (:func:`malmen.editing.layers.edited_layers`).
        seed: of its random draws.
        file: what it needs besides: of MALMEN and MEND the folder of the trained editor
            (:mod:`malmen.jobs.train_editor`), of MEMIT the file of the keys' covariance
            (:mod:`malmen.jobs.collect_covariance`).

    Raises:
        DivergedError: if the editor's training diverged.
        UserError: if a file is missing, broken, or made for another model.
    """
    return EDITORS[settings.method](settings, layers, seed, file)


def given(file: Path | None) -> Path:
    """Return the file; raise ``ValueError`` if it was not given."""
    if file is None:
        raise ValueError("this editor needs a file that was not given")
    return file
