"""What figures and tables say of the setting of a run, beside the paper's."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from malmen.results.metrics import MetricsFile

TAUGHT = (
    "Not comparable with ours: our model was first fine-tuned on the answers to unrelated prompts, so that an edit has "
    "something to spoil; the paper's model was not, and knows few of these answers."
)
"""Why the paper's LS stands apart from ours."""
CLOCKS = {
    "cpu": "processor time of the job's process, which other jobs on the machine change little",
    "cuda": "wall time, with one job at a time on a GPU",
}
"""What the times are, by device."""


@dataclass(frozen=True)
class Setting:
    """The setting of a run.

    Attributes:
        note: how models and data differ from the paper's, in one line; empty if they do not.
        taught: keys of the models that were fine-tuned on the answers to unrelated prompts, unlike the paper's.
        device: "cpu" or "cuda".
    """

    note: str = ""
    taught: Sequence[str] = ()
    device: str = "cpu"

    def after(self, caption: str) -> str:
        """Return a caption, followed by the note."""
        return f"{caption} {self.note}".rstrip()

    @property
    def clock(self) -> str:
        """What the times are."""
        return CLOCKS[self.device]

    @property
    def clock_sentence(self) -> str:
        """The same as a sentence."""
        return f"Times are {self.clock}."


PAPERS = Setting()
"""A setting that differs in nothing from the paper's."""


def notes_of(setting: Setting, files: Sequence[MetricsFile], width: int) -> list[str]:
    """Return the lines under a figure, of at most ``width`` characters: the setting, and the facts behind a point.

    Args:
        setting: the setting.
        files: what the figure shows.
        width: the largest number of characters of a line.
    """
    groups: dict[int, int] = {}
    for run in (run for item in files for run in item.runs):
        groups[run.n_edits] = max(groups.get(run.n_edits, 0), len(run.groups))
    products = (f"{n} × {m:,} = {n * m:,}" for m, n in sorted(groups.items()) if n)
    facts = ", ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in products)
    seeds = len({run.seed for item in files for run in item.runs})
    behind = [f"Facts behind a point (groups × $m$): {facts}."] if facts else []
    # Why not other facts: see docs/deviations.md, "Protocol".
    behind += ["All seeds edit the same facts; shades leave out how results vary with facts."] if seeds > 1 else []
    return [line for text in (setting.note, " ".join(behind)) for line in textwrap.wrap(text, width)]
