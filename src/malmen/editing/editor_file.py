"""A trained hyper-network editor as one safetensors file.

The file holds the networks' parameters and normalisers. Its header holds, as JSON, the editor's settings, the names of
its layers, and what it was trained for.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmen.config.base import Dtype, TaskName
from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.errors import DivergedError, UserError
from malmen.models.prompt_form import PromptForm
from malmen.results.training import TrainingFile
from malmen.runtime.files import replacing

HEADER = "malmen_editor"


@dataclass(frozen=True)
class TrainedFor:
    """What an editor was trained for.

    Attributes:
        model: name of the model.
        weights: digest of the model's weights (:func:`malmen.models.identity.weights_digest`).
        task: how the model answers.
        editor: name of the editor in figures.
        n_edits: number of edits m.
        seed: of its random draws.
        dtype: precision of the model's weights during training.
        diverged: why its training stopped early; None if it did not.
        form: how the model was asked in training; None if plainly.
    """

    model: str
    weights: str
    task: TaskName
    editor: str
    n_edits: int
    seed: int
    dtype: Dtype
    diverged: str | None = None
    form: PromptForm | None = None

    @classmethod
    def read(cls, path: Path) -> "TrainedFor":
        """Read it from an editor's file, without the model.

        Raises:
            UserError: if the file does not hold an editor, or does not say what it was trained for.
        """
        try:
            about = read_content(path)[0]["about"]
            return cls(**about | {"form": PromptForm(**about["form"]) if about.get("form") else None})
        except TypeError:
            raise UserError(f"{path} does not say which model it was trained for; train it again.") from None


def write_editor_file(path: Path, editor: HyperNetworkEditor, trained_for: TrainedFor) -> None:
    """Write a trained editor, whole or not at all; equal editors give equal bytes."""
    settings = asdict(replace(editor.settings, device=None))  # another machine may not have this device
    layers = [layer.name for layer in editor.layers]
    about = {name: value for name, value in asdict(trained_for).items() if name != "form" or value}
    header = {"settings": settings, "layers": layers, "about": about}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in editor.networks.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(header, sort_keys=True)})


def read_editor_file(path: Path, candidates: Sequence[EditedLayer], device: str | None = None) -> HyperNetworkEditor:
    """Read a trained editor.

    Args:
        path: its file.
        candidates: the model's linear layers, among which the editor's are found by name.
        device: where the editor is to lie; the layers' device if None.

    Raises:
        UserError: if the file does not hold an editor, or the model lacks one of its layers.
    """
    header, tensors = read_content(path)
    by_name = {layer.name: layer for layer in candidates}
    missing = [name for name in header["layers"] if name not in by_name]
    if missing:
        raise UserError(f"{path} edits layer {missing[0]}, but this model has no such layer; choose its own editor.")
    layers = [by_name[name] for name in header["layers"]]
    editor = HyperNetworkEditor.create(layers, replace(header["settings"], device=device), seed=0)
    try:
        editor.networks.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} was trained for layers of other sizes than this model's; choose another.") from None
    return editor


def load_trained(folder: Path, candidates: Sequence[EditedLayer], device: str | None = None) -> HyperNetworkEditor:
    """Load an editor from the folder that :func:`malmen.jobs.train_editor.train_editors` wrote.

    Raises:
        DivergedError: if its training diverged.
        UserError: if a file is missing or malformed.
    """
    if reason := TrainingFile.read(folder / "training.json").reason:
        raise DivergedError(reason)
    return read_editor_file(folder / "editor.safetensors", candidates, device)


def holds_an_editor(path: Path) -> bool:
    """Return whether a safetensors file holds a trained editor."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors of an editor's file.

    Raises:
        UserError: if the file does not hold an editor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            header["settings"] = HyperNetworkSettings(**header["settings"])
            # Cloned, because the file is mapped into memory, at places that can change how products are rounded.
            return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as a trained editor ({type(error).__name__}); train it again."
        ) from None
