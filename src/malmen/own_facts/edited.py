"""An edited model: its scores, its weights, and where it is saved. This module loads no torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from malmen.errors import UserError
from malmen.runtime.files import replacing_directory
from malmen.runtime.model_files import TEMPLATES, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from malmen.editing.layers import PostEditWeights, Shifts
    from malmen.own_facts.model import LoadedModel
    from malmen.own_facts.report import EditReport, EditScores


@dataclass(frozen=True)
class EditedModel:
    """A model with facts edited into it. The loaded model itself stays as it was, unless inside :meth:`applied`.

    Attributes:
        model: the unedited model.
        shifts: by the name of an edited layer, the shift S of its weight as (d_in, d_out).
        weights: the edited weights.
        report: the scores, and every fact's answer before and after the edit.
    """

    model: "LoadedModel"
    shifts: "Shifts"
    weights: "PostEditWeights"
    report: "EditReport"

    @property
    def scores(self) -> "EditScores":
        """ES, GS and LS after the edit, the same with ``pre_`` before it, and ``agreement``; all in 0..1."""
        return self.report.metrics

    @contextmanager
    def applied(self) -> Iterator["PreTrainedModel"]:
        """Give the edited Hugging Face model inside a ``with`` block; afterwards it is unedited again, bit for bit.

        In the block, :func:`malmen.ask` asks it in the form of the edit.
        """
        with self.model.asked_in(self.report.form), self.weights.applied():
            yield self.model.module

    def save(self, directory: str | Path, force: bool = False, delta_only: bool = False) -> None:
        """Write the edited model and what is to be known of the edit into a directory, or nothing at all.

        The files are those of the unedited model; only the bytes of edited tensors differ. Beside them lie
        ``README.md`` (the model card), ``report.json``, ``report.md`` and ``report.html``, and ``edit.delta``, which
        undoes the edit.

        Args:
            directory: New or empty directory for the edited model.
            force: Replace an edited model that is already in the directory.
            delta_only: Write only edit.delta and the report; `malmen apply` makes the edited model of them.

        Raises:
            UserError: if the directory holds anything that may not be replaced, or there can be no delta because the
                edited weights are not stored as the model uses them.
        """
        check_out(Path(directory), force, [self.model.source.directory])
        from malmen.own_facts.saving import write_edited  # noqa: PLC0415 (imports torch)

        with replacing_directory(Path(directory).resolve()) as folder:
            write_edited(self, folder, delta_only)


def check_out(directory: Path, force: bool, inputs: Sequence[Path]) -> None:
    """Refuse a directory in which something would be destroyed if the edited model was written there.

    Raises:
        UserError: if it is a file, contains an input or the current directory, holds anything that may not be replaced,
            or cannot be made.
    """
    out = directory.resolve()
    if out.is_file():
        raise UserError(f"{directory} is a file; choose another directory for the edited model.")
    # The directory is replaced as a whole, so that nobody ever sees half a model.
    if out.is_mount() or Path.cwd().is_relative_to(out):
        raise UserError(f"{directory} is a mount point or the current directory; choose a new directory in it.")
    refuse_if_not_writable(directory, next(parent for parent in out.parents if parent.exists()))
    if not out.is_dir() or not any(out.iterdir()):
        return
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(out):
            raise UserError(f"{directory} contains the input {path}; choose another directory for the edited model.")
    if not holds_only_an_edited_model(out):
        raise UserError(f"{directory} is not empty and holds no edited model, or other folders, too; choose another.")
    if not force:
        raise UserError(
            f"{directory} already holds an edited model; choose another directory, or replace it with --force (in "
            "Python, force=True)."
        )


def check_folder(folder: Path, what: str) -> None:
    """Raise :class:`UserError` if ``what`` could not be written into a folder after long work."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; choose a folder for {what}.")
    refuse_if_not_writable(folder, next(path for path in (folder, *folder.resolve().parents) if path.exists()))


def refuse_if_not_writable(directory: Path, parent: Path) -> None:
    """Raise :class:`UserError` if a directory cannot be made in a folder: the edit would be lost at its end."""
    try:
        with TemporaryDirectory(dir=parent, prefix=".malmen-"):
            pass
    except OSError as error:
        raise UserError(
            f"{directory} cannot be made, because {parent} refuses new folders ({error.strerror}); choose another "
            "directory."
        ) from None


def holds_only_an_edited_model(folder: Path) -> bool:
    """Return whether a folder holds the report of an edit, and no folders but one of chat templates."""
    report = read_object(folder / "report.json")
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    return {"weights", "editor", "metrics"} <= report.keys() and folders <= {TEMPLATES}
