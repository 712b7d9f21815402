"""Costs of trainings and edits, from the files that jobs write beside their results."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from malmen.results.costs import CostsFile
from malmen.results.run import Run
from malmen.results.sources import Origin


@dataclass(frozen=True)
class CostFiles:
    """The files of costs of one editor on one model.

    Attributes:
        training: files of the costs of trainings; empty for editors without training.
        editing: files of the costs of editing one group.
    """

    training: tuple[Path, ...]
    editing: tuple[Path, ...]

    def origins(self, n_edits: int | None = None) -> tuple[Origin, ...]:
        """Return the files and runs of all costs, or of those for one number of edits."""
        runs = ((path, run) for path in (*self.training, *self.editing) for run in hours([path]))
        return tuple(Origin(path, run.n_edits, run.seed) for path, run in runs if n_edits in (None, run.n_edits))

    def by_run(self) -> dict[str, dict[Run, float]]:
        """Return the times in hours of each run that edited: of training, of editing one group, and of both."""
        editing = hours(self.editing)
        trained = hours(self.training)
        training = {run: trained[run] if self.training else 0.0 for run in editing}
        both = {run: training[run] + editing[run] for run in editing}
        return {"training_hours": training, "editing_hours": editing, "hours": both}


def hours(paths: Iterable[Path]) -> dict[Run, float]:
    """Return the time of each run in files of costs.

    Raises:
        UserError: naming the file that is missing or malformed.
    """
    return {cost.run: cost.seconds / 3600 for path in paths for cost in CostsFile.read(path).root}
