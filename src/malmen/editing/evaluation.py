"""ES, GS and LS of groups of edits, beside their pre-edit values (section 3; protocol of section 5)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malmen.config.base import BatchSize
from malmen.data.tuples import EditTuple, Triple
from malmen.editing.base_outputs import BaseOutputs, LiveBaseOutputs
from malmen.editing.capture import KeysAndGradients
from malmen.editing.editor import Editor
from malmen.editing.hypernetwork_in_rounds import HyperNetworkInRounds
from malmen.editing.layers import EditedLayer, PostEditWeights, Shifts
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import encode_group
from malmen.errors import DivergedError
from malmen.models.batching import agree_on_sizes
from malmen.models.language_model import Batch, Example, LanguageModel, of_all_ranks, shared, with_loss_weights
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.ranks import ranks
from malmen.runtime.work_clock import seconds_of_all_ranks, work_seconds


@dataclass(frozen=True)
class Scores:
    """How a model answers a list of examples.

    Attributes:
        correct: for each example, the share of its A answer rows whose arg max is the target, (n,), 0..1.
        predictions: for each example, the arg max of its answer rows, (A,).
    """

    correct: Tensor
    predictions: list[Tensor]

    @property
    def whole(self) -> Tensor:
        """Return 1 for each example whose answer rows are all right, else 0, (n,): success by sequence, not token."""
        return (self.correct == 1).double()


@dataclass(frozen=True)
class GroupResult:
    """One edited group: the metrics of the paper, each a mean over the group's tuples.

    Attributes:
        metrics: ES, GS, LS after the edit; the same with ``pre_`` before it; ``agreement``, the share of answer rows
            of unrelated tuples whose prediction the edit did not change, all in 0..1; ``residual``, the mean residual
            MR over rows and layers (section 5.2), of hyper-network editors only; and those of :func:`sequence_wise`.
        seconds: time from encoded edits to shifts (:mod:`malmen.runtime.work_clock`).
        peak_bytes: peak memory of the process (CPU) or of the allocator (GPU) during that time.
        predictions: what the edited model answers, (A,) for each prompt.
    """

    metrics: dict[str, float]
    seconds: float
    peak_bytes: int
    predictions: Triple[list[Tensor]]


@torch.no_grad()
def score(
    model: LanguageModel,
    examples: Sequence[Example],
    batch_size: BatchSize,
    logits_of: Callable[[Batch], Tensor] | None = None,
    description: str = "answers",
) -> Scores:
    """Answer n examples under teacher forcing.

    Args:
        model: the language model.
        examples: what is answered.
        batch_size: sequences run at once.
        logits_of: returns the answer logits of a batch, (R, C); by default the model's.
        description: what progress lines call this.

    Raises:
        DivergedError: if a logit is not a number, so that there is no largest one.
    """

    def answer(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = (logits_of or model.answer_logits)(batch)  # (R, C)
        if logits.isnan().any():
            raise DivergedError("an output of the model is not a number")
        return model.task.prediction(logits).cpu(), batch.examples.cpu()

    mine = shared(examples)
    predictions: list[Tensor] = [torch.empty(0)] * len(mine)
    with ranks().together():
        for answers, owners in model.in_batches("answers", mine, batch_size, answer, description):
            for owner in owners.unique().tolist():
                predictions[owner] = answers[owners == owner]
    if not ranks().alone:
        answered = of_all_ranks([prediction.tolist() for prediction in predictions], examples)
        predictions = [torch.tensor(answer) for answer in answered]
    correct = [
        (prediction == torch.tensor(example.targets)).double().mean()
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    return Scores(torch.stack(correct), predictions)


class Evaluation:
    """The tuples that results are reported on, encoded once, with the pre-edit model's scores.

    These depend on the model and the tuples alone, so one evaluation serves every editor and every m.

    Args:
        model: the language model, unedited.
        tuples: the reported tuples, in the order in which groups are formed.
        batch_size: sequences run at once.
        seed: of the draw of one equivalent prompt per tuple.
        base_outputs: gives the outputs of the unedited model; by default it computes them.
    """

    def __init__(
        self,
        model: LanguageModel,
        tuples: Sequence[EditTuple],
        batch_size: BatchSize,
        seed: int,
        base_outputs: BaseOutputs | None = None,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.base_outputs = base_outputs or LiveBaseOutputs(model)
        self.all = encode_group(model, tuples, random.Random(seed))
        self.before = self.all.map(
            lambda examples: score(
                model, examples, batch_size, lambda batch: self.base_outputs.before(batch)[0], "pre-edit answers"
            )
        )

    def groups(self, n_edits: int, limit: int | None = None) -> list[slice]:
        """Return the whole groups of m consecutive tuples, at most ``limit`` of them."""
        starts = range(0, len(self.all.edit) - n_edits + 1, n_edits)
        return [slice(start, start + n_edits) for start in starts][:limit]

    def run(self, editor: Editor, group: slice) -> GroupResult:
        """Edit one group into the model, score it, and restore the model."""
        # The loss weights are those of the group alone: its virtual batches start at its first tuple.
        edits = with_loss_weights(self.all.edit[group])
        with PeakMemory(self.model.device) as memory:
            start = work_seconds(self.model.device)
            shifts, captured = edit(self.model, editor, edits, self.base_outputs)
            seconds = seconds_of_all_ranks(work_seconds(self.model.device) - start, self.model.device)
        after = self.after(editor.layers, shifts, group)
        agree_on_sizes(self.model.sizes)
        metrics = self.metrics(after, group) | sequence_wise(after, self.before_of(group))
        network = trained_network(editor)
        if captured is not None and network is not None:
            residuals = network.residuals(captured, shifts)
            metrics |= {"residual": residuals.double().mean().item()} if len(residuals) else {}
        return GroupResult(
            metrics, seconds, ranks().largest(memory.peak_bytes), after.map(lambda scores: scores.predictions)
        )

    def after(self, layers: Sequence[EditedLayer], shifts: Shifts, group: slice) -> Triple[Scores]:
        """Return the scores of a group with its shifts, (d_in, d_out) by layer, applied."""
        with PostEditWeights(layers, shifts).applied():
            return self.scores(group)

    def scores(self, group: slice) -> Triple[Scores]:
        """Return the scores of a group of the model as it is now, which is an edited one."""
        return self.all.map(
            lambda examples: score(self.model, examples[group], self.batch_size, self.logits_after, "post-edit answers")
        )

    def before_of(self, group: slice) -> Triple[Scores]:
        """Return the scores of a group of the unedited model."""
        return self.before.map(lambda scores: Scores(scores.correct[group], scores.predictions[group]))

    def metrics(self, after: Triple[Scores], group: slice) -> dict[str, float]:
        """Return ES, GS and LS of a group after the edit and, with ``pre_``, before it; and the agreement."""
        before, metrics = self.before_of(group), dict[str, float]()
        for name, post, pre in zip(("ES", "GS", "LS"), after, before, strict=True):
            metrics[name] = post.correct.mean().item()
            metrics[f"pre_{name}"] = pre.correct.mean().item()
        metrics["agreement"] = agreement(after.unrelated.predictions, before.unrelated.predictions)
        return metrics

    def logits_after(self, batch: Batch) -> Tensor:
        """Return the answer logits of the edited model, (R, C)."""
        with self.base_outputs.after_prefix(batch):
            return self.model.answer_logits(batch)


def sequence_wise(after: Triple[Scores], before: Triple[Scores]) -> dict[str, float]:
    """Return the metrics of Table 3 from the scores of edit, equivalent and unrelated examples (appendix A.7).

    ``edit_success`` is the share of edit and equivalent examples whose answer is right as a whole after the edit,
    ``drawdown`` by how much the edit lowered that share among unrelated examples (it may be negative).
    """
    edited = torch.cat([after.edit.whole, after.equivalent.whole])
    return {
        "edit_success": edited.mean().item(),
        "drawdown": (before.unrelated.whole.mean() - after.unrelated.whole.mean()).item(),
    }


def edit(
    model: LanguageModel, editor: Editor, edits: Sequence[Example], base_outputs: BaseOutputs
) -> tuple[Shifts, dict[str, KeysAndGradients] | None]:
    """Return an editor's shifts, (d_in, d_out) by layer, and a hyper-network's keys and gradients, else None."""
    network = trained_network(editor)
    if network is None or not isinstance(editor, HyperNetworkEditor | HyperNetworkInRounds):
        return editor.shifts(model, edits), None
    captured = base_outputs.capture(network, network.weighted(edits))
    return editor.aggregate(captured), captured


def trained_network(editor: Editor) -> HyperNetworkEditor | None:
    """Return the trained hyper-network that an editor edits with; None if it has none."""
    trained = editor.trained if isinstance(editor, HyperNetworkInRounds) else editor
    return trained if isinstance(trained, HyperNetworkEditor) else None


def agreement(after: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Return the mean over examples of the share of answer rows, (A,), with an unchanged prediction, 0..1."""
    shares = [(a == b).double().mean() for a, b in zip(after, before, strict=True)]
    return torch.stack(shares).mean().item()
