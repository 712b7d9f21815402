"""Cached rows: in memory while they are few, beyond a budget in a file that has no name.

What editing keeps of m edits is n rows of d_in + d_out numbers in each layer, and from the forward to the backward pass
a factor of up to d_in x d_in; all else is as large for one edit as for many. A :class:`FileRows` is written and read in
pieces, so that memory does not grow with m.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import torch
from torch import Tensor

from malmen.errors import UserError
from malmen.models.batch_sizes import ROWS_IN_MEMORY


class FileRows:
    """A matrix (n, d) in a temporary file, to be written and read by slices of rows; what is read is a tensor.

    The file never has a name where the system allows that, as Linux does: its space is given back with this object or
    with the process, however either ends, and nobody else can see it half written. It is read into buffers and not
    mapped into memory, where its pages would count as the process's own.

    Args:
        n: number of rows.
        width: d.
        dtype: of the numbers.
        device: where pieces are needed.
        file: a file that holds the matrix and nothing else, opened without a buffer; by default a temporary one.
    """

    def __init__(
        self,
        n: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        file: IO[bytes] | None = None,
    ) -> None:
        self.shape = torch.Size((n, width))
        self.dtype, self.device = dtype, device
        self.row_bytes = width * dtype.itemsize
        self.file = file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as this object lives)

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, place: slice, rows: Tensor) -> None:
        """Write rows; ``place`` has a start."""
        data = as_bytes(rows.to("cpu", self.dtype).contiguous())
        transfer(os.pwrite, self.file.fileno(), data, place.start * self.row_bytes)

    def __getitem__(self, place: slice) -> Tensor:
        """Read rows."""
        start, stop, _ = place.indices(len(self))
        rows = torch.empty(stop - start, self.shape[1], dtype=self.dtype)
        transfer(read_into, self.file.fileno(), as_bytes(rows), start * self.row_bytes)
        return rows.to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the rows in their order, ``size`` at a time, as ``Tensor.split`` does."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


Rows: TypeAlias = Tensor | FileRows
"""A matrix whose rows are taken a few at a time, by ``split``."""


def kept_like(rows: Rows, matrix: Tensor) -> Rows:
    """Put a matrix where some rows are kept: into a file of its own if they are in one."""
    if isinstance(rows, Tensor):
        return matrix
    kept = FileRows(matrix.shape[0], matrix.shape[1], matrix.dtype, matrix.device)
    kept[0:] = matrix
    return kept


def whole(rows: Rows) -> Tensor:
    """Return all rows at once."""
    return rows if isinstance(rows, Tensor) else rows[:]


@dataclass(frozen=True)
class RowStore:
    """Makes the matrices in which rows are kept.

    Attributes:
        dtype: of the numbers.
        device: where they are computed with.
        in_memory: whether they are kept there.
    """

    dtype: torch.dtype
    device: torch.device
    in_memory: bool

    @classmethod
    def for_numbers(
        cls, count: int, budget: int | Literal["auto"], dtype: torch.dtype, device: torch.device
    ) -> "RowStore":
        """Return where so many numbers in all can be kept: in memory if they take no more bytes than the budget.

        Raises:
            UserError: if they go to disk, which has too little space left.
        """
        needed = count * dtype.itemsize
        if budget == "auto":
            on_gpu = device.type == "cuda"
            budget = torch.cuda.get_device_properties(device).total_memory // 4 if on_gpu else ROWS_IN_MEMORY
        in_memory = needed <= budget
        if not in_memory and needed > (left := shutil.disk_usage(tempfile.gettempdir()).free):
            raise UserError(
                f"What is kept of this group of edits takes {needed / 1e9:.1f} GB on disk, but {tempfile.gettempdir()} "
                f"has {left / 1e9:.1f} GB left; set TMPDIR to a directory with more, or raise rows_bytes to use memory."
            )
        return cls(dtype, device, in_memory)

    def empty(self, n: int, width: int) -> Rows:
        """Return an (n, width) matrix to be written to."""
        if self.in_memory:
            return torch.empty(n, width, dtype=self.dtype, device=self.device)
        return FileRows(n, width, self.dtype, self.device)


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU, whatever its precision."""
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read into a buffer; return how many bytes were there."""
    return os.preadv(descriptor, [buffer], offset)


def transfer(call: Callable[[int, memoryview, int], int], descriptor: int, data: memoryview, offset: int) -> None:
    """Read or write all of ``data`` at an offset: the system may do it in several parts.

    Raises:
        UserError: if the disk is full, or the file shorter than it must be.
    """
    done = 0
    while done < len(data):
        try:
            moved = call(descriptor, data[done:], offset + done)
        except OSError as error:
            raise UserError(
                f"The file of cached rows in {tempfile.gettempdir()} cannot be used ({error.strerror}); set TMPDIR to "
                "a directory with more space, or raise rows_bytes to keep the rows in memory."
            ) from None
        if not moved:
            raise EOFError("a file of cached rows ends before its last row")
        done += moved
