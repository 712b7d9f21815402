"""Cached rows in batches: through a hyper-network pass as many rows at once as memory allows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.capture import KeysAndGradients
from malmen.models.batch_sizes import rows_at_once
from malmen.models.batching import Size, in_parts

Result = TypeVar("Result")


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of one layer.

    Attributes:
        keys: (k, d_in).
        gradients: (k, d_out).
        place: which of the layer's n rows they are.
    """

    keys: Tensor
    gradients: Tensor
    place: slice


def first_size(settings: HyperNetworkSettings, row_bytes: int, device: torch.device) -> Size:
    """Return how many rows run at once before anything is known of memory and speed.

    Args:
        settings: the editor's. Unless they set the number, it depends on the network's size alone.
        row_bytes: bytes that the network's graph takes for one row.
        device: where the rows run.
    """
    number = rows_at_once(settings.rows_per_batch, settings.graph_bytes, row_bytes)
    return Size.on(device, number, settings.rows_per_batch == "auto")


def in_row_batches(
    captured: KeysAndGradients, size: Size, layer: str, work: Callable[[RowBatch], Result]
) -> Iterator[Result]:
    """Yield what ``work`` returns for batches of the n rows of a layer, in their order.

    Where memory runs out, the batch that failed runs again in halves (:func:`malmen.models.batching.in_parts`), so
    ``work`` must change nothing.

    Raises:
        DoesNotFitError: if memory does not hold a single row.
    """

    def work_on(rows: Sequence[int]) -> Result:
        place = slice(rows[0], rows[-1] + 1)
        return work(RowBatch(captured.keys[place], captured.gradients[place], place))

    what = f"One cached row of layer {layer} in the hyper-network"
    return in_parts(range(len(captured.keys)), size, work_on, what, f"rows: {layer}")


def add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add to each parameter's ``grad`` its gradient, of the parameter's shape; None adds nothing."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def total(summands: Iterable[Tensor]) -> Tensor:
    """Return the sum of one or more tensors of one shape; the first of them is overwritten."""
    remaining = iter(summands)
    result = next(remaining)
    for summand in remaining:
        result += summand
    return result
