"""Sums, rows and errors of several ranks."""

import os
import signal
from pathlib import Path

import pytest
import torch
from on_ranks import on_ranks
from torch import Tensor

from malmen.errors import DivergedError, InterruptedJobError, UserError
from malmen.runtime.checkpoint import Checkpoint, State
from malmen.runtime.ranks import ALONE, ranks


def shared(n: int) -> dict[str, object]:
    here = ranks()
    mine = torch.tensor([[float(i), 1.0] for i in here.share(range(n))]).reshape(-1, 2)
    total = here.sum_at(mine.sum(0), owner=1).wait()
    raised = ""
    try:
        with here.together():
            if here.rank == 1:
                raise DivergedError("a loss is not finite")
    except DivergedError as error:
        raised = str(error)
    return {
        "sum": here.sum(mine.sum(0)).tolist(),
        "at owner": None if total is None else total.tolist(),
        "rows": here.all_rows(mine).tolist(),
        "in order": here.in_order(mine).tolist(),
        "from last": here.from_owner(torch.tensor([float(here.rank)]), here.size - 1).item(),
        "numbers": here.sum_numbers(1.5, here.rank),
        "largest": here.largest(here.rank),
        "raised": raised,
        "of first": here.from_first(lambda: here.rank),
    }


@pytest.mark.parametrize(("size", "n"), [(2, 5), (3, 2)])
def test_all_ranks_know_the_sums_rows_and_errors_of_all(size: int, n: int) -> None:
    found = on_ranks(size, shared, n)
    for rank, one in enumerate(found):
        assert one["sum"] == [n * (n - 1) / 2, n]
        assert one["at owner"] == ([n * (n - 1) / 2, n] if rank == 1 else None)
        assert one["rows"] == [[i, 1.0] for first in range(size) for i in range(first, n, size)]
        assert one["in order"] == [[i, 1.0] for i in range(n)]
        assert one["from last"] == size - 1 == one["largest"]
        assert one["numbers"] == [1.5 * size, size * (size - 1) / 2]
        assert one["raised"] == "a loss is not finite"
        assert one["of first"] == 0


def test_alone_nothing_moves() -> None:
    rows: Tensor = torch.ones(3, 2)
    assert ranks() is ALONE
    assert ALONE.all_rows(rows) is rows and ALONE.in_order(rows) is rows
    assert ALONE.sum(rows) is rows and ALONE.from_owner(rows, 0) is rows
    assert ALONE.sum_at(rows, 0).wait() is rows
    assert ALONE.share([1, 2]) == [1, 2] and ALONE.gathered("a") == ["a"]
    assert ALONE.from_first(lambda: rows) is rows


def interrupted(folder: Path) -> tuple[int, str, str]:
    """Take steps until the last rank gets a signal; return their number, what was said, and what of another state."""
    here, steps, said = ranks(), 0, ""
    checkpoint = Checkpoint(folder / "state.safetensors", "work")
    try:
        with checkpoint.saving(lambda: State(values={"steps": here.largest(steps)})) as step_taken:
            for steps in range(1, 9):
                if steps == 3 and here.rank == here.size - 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                step_taken()
    except InterruptedJobError as error:
        said = str(error)
    saved = checkpoint.read()
    assert saved and saved.values == {"steps": steps}
    try:
        Checkpoint(folder / f"state{'' if here.first else 2}.safetensors", "work").read()
    except UserError as error:
        return steps, said, str(error)
    return steps, said, ""


def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path: Path) -> None:
    said = "work was ended by SIGTERM (its state was saved); run the same command again to resume."
    for found, refused in ((one[:2], one[2]) for one in on_ranks(2, interrupted, tmp_path)):
        assert found == (3, said)
        assert refused.startswith("Not all processes of this job see the same ")
