"""A trained editor, read from a file or just trained, that belongs to the weights that it was trained for."""

from dataclasses import dataclass, replace
from pathlib import Path

from malmen.config.base import BatchSize
from malmen.editing.editor_file import TrainedFor, holds_an_editor, read_editor_file, write_editor_file
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers
from malmen.runtime.text import first_few

FILE = "editor.safetensors"


@dataclass(frozen=True)
class TrainedEditor:
    """MALMEN or MEND, trained for one model.

    Attributes:
        trained_for: the model, the number of edits m and the seed of its training.
        path: its file; None if it was not saved yet.
        network: the editor itself; None if it is still in its file.
    """

    trained_for: TrainedFor
    path: Path | None = None
    network: HyperNetworkEditor | None = None

    def save(self, path: str | Path) -> Path:
        """Write the editor as one safetensors file and return its path.

        Args:
            path: the file, or the folder of ``editor.safetensors`` if the path does not end in ``.safetensors``.

        Raises:
            UserError: if the editor was read from a file, which needs no copy.
        """
        if self.network is None:
            raise UserError(f"The editor is already saved in {self.path}; copy that file.")
        file = Path(path) if Path(path).suffix == ".safetensors" else Path(path) / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        write_editor_file(file, self.network, self.trained_for)
        return file

    def bind(self, model: LanguageModel, batch_size: BatchSize) -> HyperNetworkEditor:
        """Return the editor of a model's layers, which runs ``batch_size`` sequences at once.

        Raises:
            UserError: if the model has no such layers.
        """
        layers = {name: EditedLayer(name, module) for name, module in linear_layers(model.module).items()}
        if self.network is None:
            assert self.path is not None
            editor = read_editor_file(self.path, list(layers.values()))
        else:
            slots = [replace(slot, layer=layers[slot.layer.name]) for slot in self.network.slots]
            editor = replace(self.network, layers=[slot.layer for slot in slots], slots=slots)
        # The physical batch size changes an edit by rounding only; that of the training made another editor.
        editor.settings = replace(editor.settings, batch_size=batch_size)
        return editor


def load_editor(path: str | Path) -> TrainedEditor:
    """Read what a saved editor was trained for; the rest of the file is read when the editor meets its model.

    Raises:
        UserError: if there is no such editor, a folder has several, or its training diverged.
    """
    file = the_editor_in(Path(path)) if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(f"There is no editor {file}; train one (`malmen train`), or use fine-tuning or MEMIT.")
    trained_for = TrainedFor.read(file)
    if trained_for.diverged:
        raise UserError(f"{file} cannot be used because its {trained_for.diverged}; choose another editor.")
    return TrainedEditor(trained_for, file)


def the_editor_in(folder: Path) -> Path:
    """Return the one editor that lies in a folder or below it.

    Raises:
        UserError: if there is none, or there are several, which it names.
    """
    found = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.rglob(FILE))
    if not found:
        found = [file for file in sorted(folder.rglob("*.safetensors")) if holds_an_editor(file)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"There is no editor in {folder} or below it ({FILE}); train one (`malmen train`), or use fine-tuning or "
            "MEMIT."
        )
    raise UserError(f"{folder} holds {len(found)} editors: {first_few(list(map(str, found)), 10)}; give one of them.")
