"""The linear layers of a model: those that can be edited, and why others cannot."""

from collections.abc import Iterator

import torch
from torch import nn

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return by name every linear layer (Linear, or GPT-2's Conv1D) that can be edited, in the model's order."""
    refused = refused_weights(module)
    return {name: part for name, part in module.named_modules() if is_linear(part) and name not in refused}


def refused_weights(module: nn.Module) -> dict[str, str]:
    """Return by name the weights that multiply hidden states but cannot be edited, each with the reason.

    These are the fused experts of a mixture, quantised layers, and layers that share their weight with another part.
    """
    parts = dict(module.named_modules())
    owners: dict[int, list[str]] = {}
    for name, part in parts.items():
        for weight in part.parameters(recurse=False):
            owners.setdefault(id(weight), []).append(name)
    refused: dict[str, str] = {}
    for name, part in parts.items():
        if looks_linear(part) and not is_plain(part):
            refused[name] = "its weight is not stored as floating-point numbers (quantised)"
        elif is_linear(part) and (others := [owner for owner in owners[id(part.weight)] if owner != name]):
            refused[name] = f"it shares its weight with {others[0]}, which an edit would change, too"
        refused |= dict(fused_weights(name, part))
    return refused


def fused_weights(name: str, part: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield a module and its own parameters if these hold a matrix for each of several experts, with the reason."""
    if type(part).__module__.startswith("torch."):
        return  # a convolution has three dimensions, too
    fused = [own for own, weight in part.named_parameters(recurse=False) if weight.dim() == 3]
    if fused:
        reason = "it holds the matrices of all experts in one parameter, and each sees only the tokens sent to it"
        yield from ((full, reason) for full in (name, *(f"{name}.{own}" for own in fused)))


def is_linear(part: nn.Module) -> bool:
    """Return whether a module is Linear, or GPT-2's Conv1D."""
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"


def looks_linear(part: nn.Module) -> bool:
    """Return whether a module is a linear layer of any kind, by its class, or by the name of its class and a matrix."""
    own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return is_linear(part) or ("Linear" in type(part).__name__ and any(tensor.dim() == 2 for tensor in own))


def is_plain(part: nn.Module) -> bool:
    """Return whether a module keeps its weight as one matrix of floating-point numbers, in ``weight``."""
    weight = getattr(part, "weight", None)
    return is_linear(part) and isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.dtype in FLOATING
