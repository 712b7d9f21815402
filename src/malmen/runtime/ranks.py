"""Ranks: the processes that share one job, each with a part of the edits, on torch.distributed.

All ranks run the same program with the same settings and random draws. Each has the whole model; each takes its share
of the examples, computes sums over them, and the sums of all ranks are added. So all ranks know the same in the end,
and hold the same bytes: a sum is formed once and sent to all.

A job that runs in one process is the only rank, :data:`ALONE`; every method then returns what it was given. One process
is one rank of one job, so there is one :func:`ranks`, which every part of the work asks. It stays alone until
:func:`join`: what else a program does with torch.distributed changes nothing here.

Every method except those marked as local is *collective*: all ranks call it, in the same order, or all wait.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from malmen.errors import UserError

Item = TypeVar("Item")

PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that still works; torchrun notices one that ended."""


SMALL = 2**16
"""Number of numbers below which tensors travel together."""


class RankLostError(RuntimeError):
    """Another rank of the job ended, so that this one cannot go on; what happened is that rank's story."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share its job.

    Attributes:
        rank: its number, counted from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other rank (local)."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that logs, saves and writes results (local)."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this rank's share of the items: every R-th of them (local)."""
        return items if self.alone else items[self.rank :: self.size]

    def owner(self, number: int) -> int:
        """Return the rank that solves the system of a layer, by the layer's number (local)."""
        return number % self.size

    def waves(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Yield as many items at a time as there are ranks, so that each has an owner of its own (local)."""
        for start in range(0, len(items), self.size):
            yield items[start : start + self.size]

    # Sums and rows of tensors. Those on a GPU travel from GPU to GPU, those in main memory over the network.

    def sum(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all ranks, in place, and return the sum, the same bytes on all."""
        if not self.alone:
            with lost_ranks():
                dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Return the sums of all ranks' numbers."""
        return list(numbers) if self.alone else self.sum(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def sum_at(self, tensor: Tensor, owner: int) -> "Sum":
        """Begin to add the tensors of all ranks, in place of the owner's; the others' are of no use afterwards."""
        if self.alone:
            return Sum(tensor, True)
        with lost_ranks():
            return Sum(tensor, self.rank == owner, dist.reduce(tensor, owner, async_op=True))

    def from_owner(self, tensor: Tensor, owner: int) -> Tensor:
        """Return the owner's tensor on all ranks, which give one of the same shape and precision.

        Theirs is overwritten if its numbers lie one after the other, as those of whole rows do.
        """
        if self.alone:
            return tensor
        tensor = tensor.contiguous()
        with lost_ranks():
            dist.broadcast(tensor, owner)
        return tensor

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Add the tensors of all ranks, of one precision, in place; small ones travel together."""
        small = [tensor for tensor in tensors if tensor.numel() < SMALL]
        for tensor in tensors:
            if tensor.numel() >= SMALL:
                self.sum(tensor)
        if small and not self.alone:
            together = self.sum(torch.cat([tensor.flatten() for tensor in small]))
            for tensor, part in zip(small, together.split([tensor.numel() for tensor in small]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def each(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which are of one shape and precision, in the ranks' order."""
        if self.alone:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with lost_ranks():
            dist.all_gather(found, tensor)
        return found

    def all_rows(self, rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Return the rows of all ranks, one rank after the other, (n, ...), of each rank's (n_r, ...); n_r may be 0.

        ``counts`` are the n_r of all ranks, where they are known.
        """
        if self.alone:
            return rows
        counts = list(counts or self.counts(len(rows))[0])
        whole = rows.new_empty(sum(counts), *rows.shape[1:])
        for rank, part in enumerate(whole.split(counts)):
            if rank == self.rank:
                part.copy_(rows)
            if len(part):
                self.from_owner(part, rank)
        return whole

    def in_order(self, rows: Tensor) -> Tensor:
        """Return the rows of all items in their order, (n, ...), of those of each rank's :meth:`share`, (n_r, ...)."""
        if self.alone:
            return rows
        rows = self.all_rows(rows)
        places = [place for rank in range(self.size) for place in range(rank, len(rows), self.size)]
        return torch.empty_like(rows).index_copy_(0, torch.tensor(places, device=rows.device), rows)

    def all_items(self, items: Sequence[Item]) -> list[Item]:
        """Return all items in their order, of those of each rank's :meth:`share`; small values, no tensors of a GPU."""
        parts = self.gathered(list(items))
        found: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
        return found

    # Small values, and errors.

    def gathered(self, value: Item) -> list[Item]:
        """Return the values of all ranks, in their order: numbers, texts, or small lists and tensors of them."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_ranks():
            dist.all_gather_object(values, value)
        return values

    def numbers(self, *numbers: float) -> list[list[float]]:
        """Return the numbers of all ranks, as many each, in the ranks' order; faster than :meth:`gathered`."""
        if self.alone:
            return [list(numbers)]
        return [own.tolist() for own in self.each(torch.tensor(numbers, dtype=torch.float64))]

    def from_first(self, find: Callable[[], Item]) -> Item:
        """Return what the first rank finds by local work that the others leave to it: values as :meth:`gathered` takes.

        An error of it that a user can act on is raised on all ranks.
        """
        with self.together():
            found: Any = find() if self.first else None
        of_first: Item = self.gathered(found)[0]
        return of_first

    def counts(self, *lengths: int) -> list[list[int]]:
        """Return for each of some lists how long it is on each rank."""
        return [[int(n) for n in each] for each in zip(*self.numbers(*lengths), strict=True)]

    def meet(self) -> None:
        """Wait until all ranks have come here."""
        self.gathered(None)

    def largest(self, number: int) -> int:
        """Return the largest of all ranks' numbers."""
        return int(max(own for (own,) in self.numbers(number)))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an error that a user can act on, of one rank's work in the ``with`` block, on all ranks.

        Without this the others would wait for the one that failed. The block itself must be local.
        """
        if self.alone:
            yield
            return
        error: UserError | None = None
        try:
            yield
        except UserError as caught:
            error = caught
        if any(self.sum_numbers(error is not None)):  # Most often nobody failed, and one number tells so.
            raise next(other for other in self.gathered(error) if other is not None)


@dataclass
class Sum:
    """A sum over ranks that is on its way to its owner.

    Attributes:
        tensor: of this rank; on the owner the sum, once it has come.
        here: whether this rank is the owner.
        work: what moves it; None if there is nothing to move.
    """

    tensor: Tensor
    here: bool
    work: Any = None

    def wait(self) -> Tensor | None:
        """Return the sum on its owner, and None elsewhere, once this rank's part of it is done."""
        if self.work is not None:
            with lost_ranks():
                self.work.wait()
        return self.tensor if self.here else None


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Raise :class:`RankLostError` where a collective fails because another rank ended."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:  # of gloo, NCCL or the store: each has its own words
        raise RankLostError(f"another rank ended ({str(error).splitlines()[0]})") from None


ALONE = Ranks()
_JOINED = ALONE


def ranks() -> Ranks:
    """Return the ranks of this process's job (local)."""
    return _JOINED


@contextmanager
def alone() -> Iterator[None]:
    """Let this process be the only rank in the ``with`` block, for work that knows of no other (local)."""
    global _JOINED  # noqa: PLW0603 (as in :func:`join`)
    joined, _JOINED = _JOINED, ALONE
    try:
        yield
    finally:
        _JOINED = joined


def join(device: str) -> Ranks:
    """Join the other ranks that torchrun started; on "cuda" take the GPU of this process's local rank."""
    global _JOINED  # noqa: PLW0603 (one process is one rank)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with lost_ranks():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    _JOINED = Ranks(dist.get_rank(), dist.get_world_size())
    return _JOINED


def leave() -> None:
    """Leave the other ranks; this process is alone again (local)."""
    global _JOINED  # noqa: PLW0603 (as in :func:`join`)
    _JOINED = ALONE
    if dist.is_initialized():
        dist.destroy_process_group()


def where(device: torch.device) -> str:
    """Return the name of this rank's machine and device, for records (local)."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{socket.gethostname()}: {name}"
