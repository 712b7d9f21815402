"""How much runs at once: halved where memory runs out, larger where that is faster."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from memory_errors import ALLOCATOR, CUDA
from tiny_models import encoded_group, tiny_editor

from malmen.config.hypernetwork import HyperNetworkSettings
from malmen.editing.row_batches import first_size
from malmen.errors import DoesNotFitError
from malmen.models.batch_sizes import power_of_two
from malmen.models.batching import Size, in_parts, missing_memory
from malmen.models.language_model import LanguageModel
from malmen.runtime.noted import NOTES

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16, rows_per_batch=8, graph_bytes=0)


@pytest.mark.parametrize(
    "error, missing",
    [
        (RuntimeError(ALLOCATOR), "402653184 bytes more are needed"),
        (torch.OutOfMemoryError(CUDA), "20.00 MiB more are needed"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "how much more is needed is not known"),
        (MemoryError(), "how much more is needed is not known"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_what_ran_out_is_told_from_other_errors(error: RuntimeError, missing: str | None) -> None:
    assert missing_memory(error) == missing


def limited(most: int, seen: list[int]) -> Callable[[Sequence[int]], int]:
    """Work that only so many items at once leave memory for."""

    def work(items: Sequence[int]) -> int:
        seen.append(len(items))
        if len(items) > most:
            raise RuntimeError(ALLOCATOR)
        return sum(items)

    return work


def test_only_the_batch_that_failed_is_run_again_in_halves() -> None:
    seen: list[int] = []
    size = Size(8)
    assert sum(in_parts(range(20), size, limited(3, seen), "An item")) == sum(range(20))
    assert seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert size == Size(2)


def test_the_sizes_of_batches_that_fitted_are_noted() -> None:
    NOTES.clear()
    for most in (3, 8):
        list(in_parts(range(20), Size(8), limited(most, []), "An item", "items"))
    assert NOTES.batch_sizes == {"items": {2, 8}}


def test_a_single_item_that_does_not_fit_is_named() -> None:
    with pytest.raises(
        DoesNotFitError, match=r"^A sequence does not fit into memory \(402653184 bytes more are needed\); "
    ):
        list(in_parts(range(5), Size(4), limited(0, []), "A sequence"))


def test_other_errors_pass() -> None:
    def work(_: Sequence[int]) -> int:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(in_parts(range(5), Size(4), work, "An item"))


def test_tensors_of_a_failed_batch_are_gone_before_it_is_run_again() -> None:
    alive: list[int] = []

    class Large:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def work(items: Sequence[int]) -> int:
        assert not alive
        large = Large()
        if len(items) > 1:
            raise RuntimeError(ALLOCATOR)
        return len([large])

    assert sum(in_parts(range(4), Size(4), work, "An item")) == 4


def growth(per_batch: float, per_item: float, n: int, size: Size, most: int = 10**9) -> list[int]:
    """Return the sizes of batches where a batch takes so long, and each of its items so much more."""
    now, seen = [0.0], []

    def work(items: Sequence[int]) -> None:
        seen.append(len(items))
        if len(items) > most:
            raise RuntimeError(ALLOCATOR)
        now[0] += per_batch + per_item * len(items)

    list(in_parts(range(n), size, work, "An item", clock=lambda: now[0]))
    return seen


def test_a_size_grows_while_that_is_faster() -> None:
    size = Size(4, growing=True)
    # Items a second: 4 in 20, 8 in 24, 16 in 32, 32 in 48, 64 in 80, 128 in 144: 11 % more than 64.
    assert growth(16, 1, 1000, size)[:7] == [4, 8, 16, 32, 64, 128, 256]
    assert growth(16, 1, 1000, size) == [256, 256, 256, 232]
    assert (size.growing, growth(16, 1, 300, Size(4))[:3]) == (False, [4, 4, 4])


def test_the_time_of_a_growing_size_is_taken_when_its_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, pending, now = torch.device("cuda", 0), [0.0], [0.0]

    def synchronize(device: torch.device) -> None:
        assert device == gpu
        now[0] += pending[0]
        pending[0] = 0.0

    def work(items: Sequence[int]) -> None:
        pending[0] += 16 + len(items)  # launched, in no time

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    size = Size.on(gpu, 4, automatic=True)
    list(in_parts(range(1000), size, work, "An item", clock=lambda: now[0]))
    assert (size.items, size.growing) == (256, False)  # as where the CPU works, above
    assert pending[0] > 0  # Nobody waits any more.
    assert not Size.on(gpu, 4, automatic=False).growing and not Size.on(torch.device("cpu"), 4, automatic=True).growing


def test_a_size_stops_growing_where_memory_ends() -> None:
    assert growth(16, 1, 100, Size(4, growing=True), most=10) == [4, 8, 16, *11 * [8]]


@pytest.mark.parametrize("value, expected", [(0.0, 1), (0.7, 1), (1.0, 1), (7.9, 4), (8.0, 8), (1e9, 256)])
def test_powers_of_two(value: float, expected: int) -> None:
    assert power_of_two(value, at_most=256) == expected


def test_sizes_on_a_cpu_depend_on_the_model_alone(gpt2: LanguageModel) -> None:
    editor = tiny_editor(gpt2, replace(MALMEN, batch_size="auto", rows_per_batch="auto", graph_bytes=2**20))
    editor.shifts(gpt2, encoded_group(gpt2, 40).edit)
    assert [(size.items, size.growing) for size in gpt2.sizes.values()] == [(256, False)]
    network = editor.network(editor.slots[0])
    at_once = first_size(editor.settings, network.graph_bytes(1), gpt2.device).items
    assert [(size.items, size.growing) for size in editor.row_sizes.values()] == [(at_once, False)]
    assert network.graph_bytes(4 * at_once) <= 2**20 < network.graph_bytes(8 * at_once)
