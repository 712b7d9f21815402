"""How an editor is made from its settings. Another editor of this package is one module, and one entry below.

An editor of another package needs no entry: its settings have a method ``make`` (:mod:`malmen.config.outside_editors`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from malmen.config.editor import EditorSettings
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.config.ultraedit import UltraEditEditorSettings
from malmen.editing.editor import Editor
from malmen.editing.editor_file import load_trained
from malmen.editing.every_rank import on_every_rank
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.hypernetwork_in_rounds import HyperNetworkInRounds
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import KeyCovariance
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.ultraedit import UltraEditEditor
from malmen.errors import UserError

MEMORY = ("end_round", "memory", "restore")
"""What an editor that remembers rounds has beside ``layers`` and ``shifts``."""

Layers = Sequence[EditedLayer]
Make = Callable[[Any, Layers, int, Path | None], Editor]
"""Makes an editor from its settings, its layers, the seed of its random draws, and the file or folder that it needs."""


EDITORS: Mapping[type, Make] = {
    HyperNetworkEditorSettings: lambda settings, layers, _seed, folder: trained_editor(settings, layers, given(folder)),
    FineTuningEditorSettings: lambda settings, layers, seed, _file: FineTuningEditor(layers, settings.finetuning, seed),
    MemitEditorSettings: lambda settings, layers, seed, file: MemitEditor(
        layers, settings.memit, KeyCovariance.open(given(file), layers), seed
    ),
    UltraEditEditorSettings: lambda settings, layers, _seed, _file: UltraEditEditor(layers, settings.ultraedit),
}


class OutsideSettings(Protocol):
    """The settings of an editor of another package."""

    def make(self, layers: Layers, seed: int) -> Editor:
        """Make the editor; as :func:`make_editor`."""


def make_editor(settings: EditorSettings, layers: Layers, seed: int, file: Path | None = None) -> Editor:
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
        UserError: if a file is missing, broken, or made for another model; or if an editor of another package lacks a
            part of what remembers rounds.
    """
    if type(settings) in EDITORS:
        return EDITORS[type(settings)](settings, layers, seed, file)
    editor = cast(OutsideSettings, settings).make(layers, seed)
    missing = [name for name in MEMORY if not hasattr(editor, name)]
    if 0 < len(missing) < len(MEMORY):
        raise UserError(
            f"The editor {settings.label} has no {' and no '.join(missing)}, but one that remembers rounds needs "
            f"{', '.join(MEMORY)}; add what is missing, or remove the others."
        )
    return on_every_rank(editor)


def trained_editor(settings: HyperNetworkEditorSettings, layers: Layers, folder: Path) -> Editor:
    """Return MALMEN or MEND from the folder of a trained editor; in rounds, it does what its settings say."""
    editor, in_rounds = load_trained(folder, layers, settings.hypernetwork.device), settings.in_rounds
    running = in_rounds.normaliser == "running"
    if not running and not in_rounds.remember_keys:
        return editor
    return HyperNetworkInRounds(editor, running, in_rounds.remember_keys)


def given(file: Path | None) -> Path:
    """Return the file; raise ``ValueError`` if it was not given."""
    if file is None:
        raise ValueError("this editor needs a file that was not given")
    return file
