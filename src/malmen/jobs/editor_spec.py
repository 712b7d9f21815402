"""The editor of a job: its settings, and the files that earlier jobs made for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from malmen.config.editors import EditorSettings, editor_settings
from malmen.editing.editor import Editor
from malmen.editing.editors import make_editor
from malmen.editing.layers import EditedLayer
from malmen.results.run import Run
from malmen.runtime.files import sha256


@dataclass(frozen=True)
class EditorSpec:
    """An editor, as files and settings.

    Attributes:
        name: its key in the configuration.
        settings: its settings.
        trained: the folder of its trained editors (:mod:`malmen.jobs.train_editor`); None if it needs no training.
        covariance: MEMIT's file of the covariance of keys; None for other editors.
    """

    name: str
    settings: EditorSettings
    trained: Path | None = None
    covariance: Path | None = None

    @classmethod
    def of(cls, task: Any) -> "EditorSpec":
        """Return the editor of a job that Snakemake runs; its inputs ``trained`` and ``covariance`` may be empty."""
        files = (task.input.trained, task.input.covariance)
        trained, covariance = (Path(some[0]) if some else None for some in files)
        return cls(task.wildcards.editor, editor_settings(task.params.settings), trained, covariance)

    def make(self, layers: Sequence[EditedLayer], run: Run) -> Editor:
        """Return the editor of a run.

        Raises:
            DivergedError: if its training diverged.
            UserError: if a file is missing, broken, or belongs to another model.
        """
        file = self.trained / run.name if self.trained else self.covariance
        return make_editor(self.settings, layers, run.seed, file)

    def identity(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what identifies the editors of runs, to which a saved state belongs."""
        trained = [self.trained / run.name / "editor.safetensors" for run in runs] if self.trained else []
        files = [path for path in (*trained, self.covariance) if path and path.is_file()]
        return {"settings": asdict(self.settings), "files": [sha256(path) for path in files]}
