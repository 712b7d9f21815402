"""Editing in rounds: the facts are split, and each part is edited into the model with the parts before it.

The weights are those that as many edits of saved models, one after the other, would give: each round's shift is added
to the weights of the round before, rounded to their precision, and the loss is that of the round's own facts.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from malmen.editing.editor import Editor, Remembering
from malmen.editing.layers import PostEditWeights, Shifts
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example, LanguageModel, with_loss_weights
from malmen.own_facts.editors import Method
from malmen.own_facts.health import beyond_training
from malmen.own_facts.trained import TrainedEditor
from malmen.runtime.progress import logger
from malmen.runtime.text import counted


def check_rounds(rounds: int, n_facts: int, method: Method) -> None:
    """Refuse a number of rounds that cannot be; say what an editor was not trained for.

    Raises:
        UserError: if it is no number of rounds, or larger than the number of facts.
    """
    if not isinstance(rounds, int) or not 1 <= rounds <= n_facts:
        raise UserError(
            f"{n_facts} facts cannot be edited in {rounds!r} rounds; give a whole number from 1 to {n_facts}."
        )
    if not isinstance(method, TrainedEditor):
        return
    most, n_edits = method.trained_for.n_edits, -(-n_facts // rounds)
    if n_edits > most:
        logger.warning(beyond_training(n_edits, most))
    if rounds > 1:
        logger.warning(
            "After its first round, the editor edits a model that it was not trained for: the one with the rounds "
            "before it."
        )


def parts_of(edits: Sequence[Example], rounds: int) -> list[Sequence[Example]]:
    """Return the edits in their order as parts whose sizes differ by one at most, the larger ones first."""
    size, larger = divmod(len(edits), rounds)
    starts = [number * size + min(number, larger) for number in range(rounds + 1)]
    return [edits[start:end] for start, end in pairwise(starts)]


def edit_in_rounds(
    editor: Editor, model: LanguageModel, edits: Sequence[Example], rounds: int
) -> tuple[Shifts, PostEditWeights]:
    """Return by layer the sum of the rounds' shifts, (d_in, d_out), and the edited weights; the model stays as it is.

    Raises:
        DivergedError: if a round fails; the message names it.
    """
    layers = editor.layers
    originals = [layer.weight.data for layer in layers]
    total: dict[str, Tensor] = {}
    try:
        for number, part in enumerate(parts_of(edits, rounds), start=1):
            if rounds > 1:
                logger.info("Round %d of %d: %s", number, rounds, counted(len(part), "fact"))
            try:
                shifts = editor.shifts(model, with_loss_weights(part))
            except DivergedError as error:
                raise DivergedError(f"in round {number} of {rounds}, {error}" if rounds > 1 else str(error)) from None
            weights = PostEditWeights(layers, shifts)
            total = {name: total[name] + shift if total else shift for name, shift in shifts.items()}
            for layer, edited in zip(layers, weights.edited, strict=True):
                layer.weight.data = edited
            if isinstance(editor, Remembering):
                editor.end_round(model, with_loss_weights(part))
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.weight.data = original
    return total, weights
