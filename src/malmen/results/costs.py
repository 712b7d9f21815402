"""What trainings and edits cost. Apart from the other results, which are the same bytes in every run."""

from typing import ClassVar

from pydantic import RootModel

from malmen.results.file import ResultFile, ResultPart
from malmen.results.run import Run


class Cost(ResultPart):
    """What one run cost.

    Attributes:
        run: what was run.
        seconds: time without loading, of one group of edits or of a whole training: processor time on a CPU, wall time
            on a GPU (:mod:`malmen.runtime.work_clock`).
        peak_bytes: peak memory of the process (CPU) or of the allocator (GPU).
    """

    run: Run
    seconds: float
    peak_bytes: int


class CostsFile(ResultFile, RootModel[tuple[Cost, ...]]):
    """The costs of several runs of one editor, all of trainings or all of edits."""

    kind: ClassVar[str] = "costs"
