"""What every editor is.

Given a model and a group of edits, an editor returns one shift per layer that it edits. Evaluation, timing and memory
measurement know nothing else about it.
"""

from collections.abc import Sequence
from typing import Protocol

from malmen.editing.layers import EditedLayer, Shifts
from malmen.models.language_model import Example, LanguageModel


class Editor(Protocol):
    """Anything that turns edits into shifts."""

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> Shifts:
        """Return the shift S, (d_in, d_out), of each of ``layers``, by name."""
