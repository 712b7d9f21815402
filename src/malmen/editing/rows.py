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
    """A matrix (n, d) in a temporary file, written and read by slices of rows, (k, d), as tensors.

    On Linux the file has no name: the system frees its space when this object or the process ends, and nobody else sees
    it half-written. Reads copy into buffers, because pages of a mapped file would count as the process's memory.

    Args:
        n: number of rows.
        width: d.
        dtype: precision of the numbers.
        device: device of the tensors that are read.
        file: an unbuffered file that holds only the matrix; by default a temporary one.
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
        """Write rows, (k, d), at a slice with a start."""
        data = as_bytes(rows.to("cpu", self.dtype).contiguous())
        transfer(os.pwrite, self.file.fileno(), data, place.start * self.row_bytes)

    def __getitem__(self, place: slice) -> Tensor:
        """Read the rows of a slice, (k, d)."""
        start, stop, _ = place.indices(len(self))
        rows = torch.empty(stop - start, self.shape[1], dtype=self.dtype)
        transfer(read_into, self.file.fileno(), as_bytes(rows), start * self.row_bytes)
        return rows.to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield batches of at most ``size`` rows, (k, d), in order, like ``Tensor.split``."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


Rows: TypeAlias = Tensor | FileRows
"""A matrix (n, d) that ``split`` divides into batches of rows."""


def kept_like(rows: Rows, matrix: Tensor) -> Rows:
    """Store a matrix, (n, d), as ``rows`` are stored: in memory, or in a file of its own."""
    if isinstance(rows, Tensor):
        return matrix
    kept = FileRows(matrix.shape[0], matrix.shape[1], matrix.dtype, matrix.device)
    kept[0:] = matrix
    return kept


def whole(rows: Rows) -> Tensor:
    """Return all rows as a tensor, (n, d)."""
    return rows if isinstance(rows, Tensor) else rows[:]


@dataclass(frozen=True)
class RowStore:
    """Creates matrices of rows, in memory or in files.

    Attributes:
        dtype: precision of the numbers.
        device: device of computations with them.
        in_memory: whether the matrices are in memory.
    """

    dtype: torch.dtype
    device: torch.device
    in_memory: bool

    @classmethod
    def for_numbers(
        cls, count: int, budget: int | Literal["auto"], dtype: torch.dtype, device: torch.device
    ) -> "RowStore":
        """Return a store for ``count`` numbers in all: in memory if their size fits the budget in bytes, else in files.

        Raises:
            UserError: if the numbers need files, but the disk has too little space.
        """
        needed = count * dtype.itemsize
        if budget == "auto":
            on_gpu = device.type == "cuda"
            budget = torch.cuda.get_device_properties(device).total_memory // 4 if on_gpu else ROWS_IN_MEMORY
        in_memory = needed <= budget
        if not in_memory and needed > (left := shutil.disk_usage(tempfile.gettempdir()).free):
            raise UserError(
                f"The cached rows of this group of edits need {needed / 1e9:.1f} GB, but {tempfile.gettempdir()} "
                f"has {left / 1e9:.1f} GB left; set TMPDIR to a larger disk, or raise rows_bytes to use memory."
            )
        return cls(dtype, device, in_memory)

    def empty(self, n: int, width: int) -> Rows:
        """Return an uninitialised (n, width) matrix."""
        if self.in_memory:
            return torch.empty(n, width, dtype=self.dtype, device=self.device)
        return FileRows(n, width, self.dtype, self.device)


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor of any shape and precision on the CPU."""
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
