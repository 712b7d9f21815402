"""Listing what a group of edits left or made wrong: prompts with their decoded answers (Tables 4 and 5)."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from malmen.config.settings import EditorSettings
from malmen.data.tuples import PromptAnswer
from malmen.editing.editors import make_editor
from malmen.editing.evaluation import Evaluation, Scores
from malmen.editing.layers import edited_layers
from malmen.editing.training import draw_equivalent
from malmen.errors import DivergedError, UserError
from malmen.jobs.common import Machine, ModelSpec, Run, read_enough
from malmen.models.language_model import Example

INCOMPLETE = "\ufffd"
"""What a decoder writes for a byte that is no whole character."""


@dataclass(frozen=True)
class Piece:
    """A token of an answer, or the tokens that make up one character, and whether all of it is right."""

    text: str
    right: bool


@dataclass(frozen=True)
class Answered:
    """A prompt, the answer it should have, and the answers of the unedited and of the edited model."""

    prompt: str
    target: str
    before: list[Piece]
    after: list[Piece]

    @property
    def failed(self) -> bool:
        """Whether a token of the edited model's answer is wrong."""
        return not all(piece.right for piece in self.after)


@dataclass(frozen=True)
class Record:
    """What became of one edit tuple."""

    id: str
    edit: Answered
    equivalent: Answered
    unrelated: Answered

    @property
    def failed(self) -> bool:
        """Whether one of the three prompts has a wrong answer after the edit."""
        return self.edit.failed or self.equivalent.failed or self.unrelated.failed


def list_failures(
    spec: ModelSpec,
    settings: EditorSettings,
    trained: Path | None,
    covariance: Path | None,
    tuples: Path,
    run: Run,
    machine: Machine,
) -> dict[str, Any]:
    """Edit the first group of a run and return its failing records, as in a failures file.

    The equivalent prompts are those on which the same run was measured.

    Args:
        spec: the model, one that answers questions.
        settings: the editor.
        trained: the folder of the trained editors (:mod:`malmen.jobs.train_editors`); None if not trained.
        covariance: the file of the keys' covariance that MEMIT needs; None for other editors.
        tuples: the split whose first tuples are edited.
        run: how many are edited, and the seed of the draw of equivalent prompts.
        machine: where to run.

    Raises:
        UserError: if the editor diverges, or the split has fewer tuples.
    """
    model = spec.load(machine)
    group = read_enough(tuples, [run])[: run.n_edits]
    evaluation = Evaluation(model, group, settings.hypernetwork.batch_size, run.seed)
    try:
        layers = edited_layers(model.module, spec.ffn, settings)
        editor = make_editor(settings, layers, run.seed, trained / run.name if trained else covariance)
        shifts = editor.shifts(model, evaluation.all.edit)
    except DivergedError as error:
        raise UserError(f"{settings.label} on {spec.label} has no failures to list: {error}; show another.") from None
    after = evaluation.after(editor.layers, shifts, slice(0, run.n_edits))
    pairs = ([t.edit for t in group], draw_equivalent(group, random.Random(run.seed)), [t.unrelated for t in group])
    by_kind = [
        answered(model.tokenizer, *columns)
        for columns in zip(pairs, evaluation.all, evaluation.before, after, strict=True)
    ]
    records = [Record(item.id, *three) for item, *three in zip(group, *by_kind, strict=True)]
    about = {"model_label": spec.label, "editor_label": settings.label, **asdict(run)}
    return {**about, "records": [asdict(record) for record in records if record.failed]}


def answered(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PromptAnswer],
    examples: Sequence[Example],
    before: Scores,
    after: Scores,
) -> list[Answered]:
    """Decode the answers to prompts of one kind."""
    return [
        Answered(
            pair.prompt,
            pair.answer,
            pieces(tokenizer, earlier.tolist(), example.targets),
            pieces(tokenizer, later.tolist(), example.targets),
        )
        for pair, example, earlier, later in zip(pairs, examples, before.predictions, after.predictions, strict=True)
    ]


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], targets: Sequence[int]) -> list[Piece]:
    """Decode an answer and cut it at its tokens, each right if it is the target; joined, they are the whole answer."""
    found: list[Piece] = []
    done, right = "", True
    for end, (token, target) in enumerate(zip(tokens, targets, strict=True), start=1):
        right = right and token == target
        text = str(tokenizer.decode(list(tokens[:end]), clean_up_tokenization_spaces=False))
        # A character of several tokens is not whole before its last one.
        if end == len(tokens) or not text.endswith(INCOMPLETE):
            found.append(Piece(text.removeprefix(done), right))
            done, right = text, True
    return found
