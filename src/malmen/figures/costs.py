"""Reading what trainings and edits cost from the files that the steps write beside their results."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.errors import UserError
from malmen.figures.number_sources import Origin

RunKey = tuple[int, int]
"""The number of edits m and the seed of a run."""


@dataclass(frozen=True)
class CostFiles:
    """Where the costs of one editor on one model lie.

    Attributes:
        training: files of the costs of trainings; none if it is not trained.
        editing: files of the costs of editing one group.
    """

    training: tuple[Path, ...]
    editing: tuple[Path, ...]

    def origins(self, n_edits: int | None = None) -> tuple[Origin, ...]:
        """Return the files and runs of all costs, or of those for one number of edits."""
        keys = ((path, run) for path in (*self.training, *self.editing) for run in hours([path]))
        return tuple(Origin(path, m, seed) for path, (m, seed) in keys if n_edits in (None, m))

    def by_run(self) -> dict[str, dict[RunKey, float]]:
        """Return, in hours and for each run that edited, its training, one group's editing, and both together."""
        editing = hours(self.editing)
        trained = hours(self.training)
        training = {run: trained[run] if self.training else 0.0 for run in editing}
        both = {run: training[run] + editing[run] for run in editing}
        return {"training_hours": training, "editing_hours": editing, "hours": both}


def hours(paths: Iterable[Path]) -> dict[RunKey, float]:
    """Return the time of each run in files of one or several costs.

    Raises:
        UserError: naming the file that is missing or malformed.
    """
    times = {}
    for path in paths:
        try:
            for cost in costs_in(path):
                times[int(cost["run"]["n_edits"]), int(cost["run"]["seed"])] = float(cost["seconds"]) / 3600
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} is not a file of costs ({reason}); run the rule that makes it.") from None
    return times


def costs_in(path: Path) -> list[dict[str, Any]]:
    """Return the costs of a file, one for each run."""
    content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return content
