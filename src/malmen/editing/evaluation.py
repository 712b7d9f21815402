"""ES, GS and LS of groups of edits, beside their pre-edit values (section 3; protocol of section 5)."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import EditTuple
from malmen.editing.base_outputs import BaseOutputs
from malmen.editing.capture import KeysAndGradients
from malmen.editing.editor import Editor, HyperNetworkEditor
from malmen.editing.layers import EditedLayer, PostEditWeights, Shifts
from malmen.editing.training import encode_group
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, Example, LanguageModel, with_loss_weights
from malmen.runtime.peak_memory import PeakMemory


@dataclass(frozen=True)
class Scores:
    """How a model answers a list of examples.

    Attributes:
        correct: per example, the share of its answer rows whose arg max under teacher forcing is the target, (n,).
        predictions: per example, the arg max of each of its answer rows.
    """

    correct: Tensor
    predictions: list[Tensor]

    @property
    def whole(self) -> Tensor:
        """Return per example 1 if all its answer rows are right, else 0: success by sequence, not by token."""
        return (self.correct == 1).double()


@dataclass(frozen=True)
class GroupResult:
    """One edited group: the metrics of the paper, each a mean over the group's tuples.

    Attributes:
        metrics: ES, GS, LS after the edit; the same with ``pre_`` before it; ``agreement``, the share of answer rows
            of unrelated tuples whose prediction the edit did not change, all in 0..1; ``residual``, the mean residual
            MR over rows and layers (section 5.2), if a hyper-network asked for value differences;
            and :func:`sequence_wise`.
        seconds: time to go from encoded edits to shifts.
        peak_bytes: peak memory of the process (CPU) or allocator (GPU) meanwhile.
    """

    metrics: dict[str, float]
    seconds: float
    peak_bytes: int


@torch.no_grad()
def score(
    model: LanguageModel,
    examples: Sequence[Example],
    batch_size: BatchSize,
    logits_of: Callable[[Batch], Tensor] | None = None,
) -> Scores:
    """Answer every example under teacher forcing; with the model's answer logits, or those of ``logits_of``.

    Raises:
        DivergedError: if a logit is not a number, in which the largest one is no answer.
    """
    predictions: list[Tensor] = [torch.empty(0)] * len(examples)

    def answer(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = (logits_of or model.answer_logits)(batch)
        if logits.isnan().any():
            raise DivergedError("an output of the model is not a number")
        return model.task.prediction(logits).cpu(), batch.examples.cpu()

    for answers, owners in model.in_batches("answers", examples, batch_size, answer):
        for owner in owners.unique().tolist():
            predictions[owner] = answers[owners == owner]
    correct = [
        (prediction == torch.tensor(example.targets)).double().mean()
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    return Scores(torch.stack(correct), predictions)


class Evaluation:
    """The tuples that results are reported on, encoded once, with the pre-edit model's scores.

    They depend on the model and the tuples alone, so that one evaluation serves every editor and every m.

    Args:
        model: the language model, unedited.
        tuples: the reported tuples, in the order in which groups are formed.
        batch_size: sequences run at once.
        seed: of the draw of one equivalent prompt per tuple.
        cache: what is known of the unedited model; computed anew unless given.
    """

    def __init__(
        self,
        model: LanguageModel,
        tuples: Sequence[EditTuple],
        batch_size: BatchSize,
        seed: int,
        cache: BaseOutputs | None = None,
    ) -> None:
        self.model, self.batch_size, self.cache = model, batch_size, cache
        self.all = encode_group(model, tuples, random.Random(seed))
        self.before = [score(model, examples, batch_size, self.logits_before) for examples in self.all]

    def groups(self, n_edits: int, limit: int | None = None) -> list[slice]:
        """Return the whole groups of m consecutive tuples, at most ``limit`` of them."""
        starts = range(0, len(self.all.edit) - n_edits + 1, n_edits)
        return [slice(start, start + n_edits) for start in starts][:limit]

    def run(self, editor: Editor, group: slice) -> GroupResult:
        """Edit one group into the model, score it, and restore the model."""
        # Weighed anew: a group's virtual batches begin at its first tuple.
        edits = with_loss_weights(self.all.edit[group])
        with PeakMemory(self.model.device) as memory:
            start = time.perf_counter()
            shifts, captured = edit(self.model, editor, edits, self.cache)
            seconds = time.perf_counter() - start
        after = self.after(editor.layers, shifts, group)
        before = [Scores(scores.correct[group], scores.predictions[group]) for scores in self.before]
        metrics = {}
        for name, post, pre in zip(("ES", "GS", "LS"), after, before, strict=True):
            metrics[name] = post.correct.mean().item()
            metrics[f"pre_{name}"] = pre.correct.mean().item()
        metrics |= sequence_wise(after, before)
        metrics["agreement"] = agreement(after[2].predictions, before[2].predictions)
        metrics |= mean_residual(editor, captured, shifts)
        return GroupResult(metrics, seconds, memory.peak_bytes)

    def after(self, layers: Sequence[EditedLayer], shifts: Shifts, group: slice) -> list[Scores]:
        """Return the scores of the edit, equivalent and unrelated examples of a group with its shifts applied."""
        with PostEditWeights(layers, shifts).applied():
            return [score(self.model, examples[group], self.batch_size, self.logits) for examples in self.all]

    def logits_before(self, batch: Batch) -> Tensor:
        """Return the answer logits of the unedited model."""
        return self.cache.before(batch)[0] if self.cache else self.model.answer_logits(batch)

    def logits(self, batch: Batch) -> Tensor:
        """Return the answer logits of the model, which may be edited."""
        with self.cache.after_prefix(batch) if self.cache else nullcontext():
            return self.model.answer_logits(batch)


def sequence_wise(after: Sequence[Scores], before: Sequence[Scores]) -> dict[str, float]:
    """Return the metrics of Table 3 from the scores of edit, equivalent and unrelated examples (appendix A.7).

    ``edit_success`` is the share of edit and equivalent examples whose answer is right as a whole after the edit,
    ``drawdown`` by how much the edit lowered that share among unrelated examples (it may be negative).
    """
    edited = torch.cat([after[0].whole, after[1].whole])
    return {
        "edit_success": edited.mean().item(),
        "drawdown": (before[2].whole.mean() - after[2].whole.mean()).item(),
    }


def edit(
    model: LanguageModel, editor: Editor, edits: Sequence[Example], cache: BaseOutputs | None = None
) -> tuple[Shifts, dict[str, KeysAndGradients] | None]:
    """Return an editor's shifts for a group of edits and, of a hyper-network, what it cached to make them."""
    if not isinstance(editor, HyperNetworkEditor):
        return editor.shifts(model, edits), None
    captured = cache.capture(editor, edits) if cache else editor.capture(model, edits)
    return editor.aggregate(captured), captured


def mean_residual(editor: Editor, captured: dict[str, KeysAndGradients] | None, shifts: Shifts) -> dict[str, float]:
    """Return MR as the metric ``residual``; nothing for an editor that asks for no value differences."""
    if captured is None or not isinstance(editor, HyperNetworkEditor):
        return {}
    residuals = editor.residuals(captured, shifts)
    return {"residual": residuals.double().mean().item()} if len(residuals) else {}


def agreement(after: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Return the mean over examples of the share of answer rows with an unchanged prediction."""
    shares = [(a == b).double().mean() for a, b in zip(after, before, strict=True)]
    return torch.stack(shares).mean().item()
