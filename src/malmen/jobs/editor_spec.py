"""The editor of a job: its settings, and the files that earlier jobs made for it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from malmen.config.editors import CODE, EditorSettings, editor_settings
from malmen.editing.editor import Editor
from malmen.editing.editors import make_editor
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.results.run import Run
from malmen.runtime.files import sha256


@dataclass(frozen=True)
class EditorSpec:
    """An editor, as files and settings.

    Attributes:
        name: its key in the configuration.
        settings: its settings.
        trained: the folders of its trained editors (:mod:`malmen.jobs.train_editor`); none if it needs no training.
        covariance: MEMIT's file of the covariance of keys; None for other editors.
        code: the digests of its code if another package holds that.
    """

    name: str
    settings: EditorSettings
    trained: tuple[Path, ...] = ()
    covariance: Path | None = None
    code: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Any) -> "EditorSpec":
        """Return the editor of a job that Snakemake runs; its inputs ``trained`` and ``covariance`` may be empty."""
        trained = tuple(Path(folder) for folder in task.input.trained)
        covariance = Path(task.input.covariance[0]) if task.input.covariance else None
        raw = task.params.settings
        return cls(task.wildcards.editor, editor_settings(raw), trained, covariance, raw.get(CODE) or {})

    def folder_of(self, run: Run) -> Path | None:
        """Return the folder of the editor that was trained for a run; None if the editor is not trained.

        Raises:
            UserError: if no training was for this run.
        """
        if not self.trained:
            return None
        for folder in self.trained:
            if (folder / run.name).is_dir():
                return folder / run.name
        where = ", ".join(map(str, self.trained))
        raise UserError(f"No editor was trained for m = {run.n_edits} and seed {run.seed} in {where}; train one.")

    def make(self, layers: Sequence[EditedLayer], run: Run) -> Editor:
        """Return the editor of a run.

        Raises:
            DivergedError: if its training diverged.
            UserError: if a file is missing, broken, or belongs to another model.
        """
        return make_editor(self.settings, layers, run.seed, self.folder_of(run) or self.covariance)

    def identity(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what identifies the editors of runs, to which a saved state belongs."""
        folders = filter(None, map(self.folder_of, runs))
        trained = [folder / "editor.safetensors" for folder in folders]
        files = [path for path in (*trained, self.covariance) if path and path.is_file()]
        identity = {"settings": asdict(self.settings), "files": [sha256(path) for path in files]}
        return identity | ({CODE: dict(self.code)} if self.code else {})
