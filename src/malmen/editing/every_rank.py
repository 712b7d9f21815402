"""Editors of other packages on several ranks: they know nothing of these, so each rank does all of their work.

What they call in this package must then work as in one process, such as :func:`malmen.editing.capture.capture`, which
else returns a rank's share. The shifts of the first rank count, so that work that does not repeat to the last digit
cannot let the ranks' models part.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from malmen.editing.editor import Editor, Remembering
from malmen.editing.layers import EditedLayer, Shifts
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.ranks import alone, ranks


def on_every_rank(editor: Editor) -> Editor:
    """Return an editor that works as in one process, on all ranks; the editor itself if there is one rank."""
    if ranks().alone:
        return editor
    return RememberingOnEveryRank(editor) if isinstance(editor, Remembering) else OnEveryRank(editor)


@contextmanager
def each_alone() -> Iterator[None]:
    """Let each rank do the work in the ``with`` block alone; an error that a user can act on is raised on all."""
    with ranks().together(), alone():
        yield


class OnEveryRank:
    """Makes the shifts of an editor that knows nothing of ranks.

    Args:
        editor: the editor.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    @property
    def layers(self) -> Sequence[EditedLayer]:
        """The layers that it edits."""
        return self.editor.layers

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> Shifts:
        """Return the first rank's shift, (d_in, d_out), of each layer, by name."""
        with each_alone():
            found = self.editor.shifts(model, edits)
            own = {layer.name: found[layer.name].detach().clone() for layer in self.layers}
        return {name: ranks().from_owner(shift, 0) for name, shift in own.items()}


class RememberingOnEveryRank(OnEveryRank):
    """The same for an editor that remembers rounds (:class:`malmen.editing.editor.Remembering`).

    Args:
        editor: the editor.
    """

    def __init__(self, editor: Remembering) -> None:
        super().__init__(editor)
        self.remembering = editor

    def end_round(self, model: LanguageModel, edits: Sequence[Example]) -> None:
        """Let it take note of a round of edits."""
        with each_alone():
            self.remembering.end_round(model, edits)

    def memory(self) -> dict[str, Tensor]:
        """Return copies of all that it remembers."""
        return self.remembering.memory()

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Let it remember what :meth:`memory` returned, and nothing else."""
        self.remembering.restore(memory)
