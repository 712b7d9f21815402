"""What every editor is.

Given a model and a group of edits, an editor returns one shift per layer that it edits. Evaluation, timing and memory
measurement know nothing else about it.

In rounds (:mod:`malmen.editing.rounds`), an editor is given a model that the rounds before have already edited. Some
editors keep something of those rounds, such as the keys that they edited: they are :class:`Remembering`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from malmen.editing.layers import EditedLayer, Shifts
from malmen.models.language_model import Example, LanguageModel


class Editor(Protocol):
    """Anything that turns edits into shifts."""

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> Shifts:
        """Return the shift S, (d_in, d_out), of each of ``layers``, by name, from the weights as they are."""


@runtime_checkable
class Remembering(Editor, Protocol):
    """An editor whose shifts depend on the rounds before."""

    def end_round(self, model: LanguageModel, edits: Sequence[Example]) -> None:
        """Take note of a round of edits after its shifts came into the weights of ``model``."""

    def memory(self) -> dict[str, Tensor]:
        """Return copies of all that it remembers; before the first round what :meth:`restore` starts it anew with."""

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Remember what :meth:`memory` returned, and nothing else."""
