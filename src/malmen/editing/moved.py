"""How far training moved a hyper-network's parameters from their initial values."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from malmen.results.training import Moved


@torch.no_grad()
def moved(initial: nn.Module, trained: nn.Module) -> dict[str, Moved]:
    """Return by kind how far parameters moved: ``eta``, ``log_regularisation``, ``A``, ``B``, ...

    Args:
        initial: the networks before training.
        trained: the same networks after it.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    after = dict(trained.named_parameters())
    for name, before in initial.named_parameters():
        pairs[name.rpartition(".")[2]].append((before, after[name].to(before.device)))
    return {kind: distance(values) for kind, values in pairs.items()}


def distance(pairs: list[tuple[Tensor, Tensor]]) -> Moved:
    """Return how far tensors moved, given each before and after, both in any one shape."""
    changes = [(after - before).double() for before, after in pairs]
    started = norm([before.double() for before, _ in pairs])
    return Moved(max(change.abs().max().item() for change in changes), norm(changes) / started if started else None)


def norm(tensors: list[Tensor]) -> float:
    """Return the Euclidean norm of all numbers of some tensors."""
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())
