"""Measures speed-up and memory against the number of ranks that share training and editing, on CPUs or GPUs.

    python benchmarks/parallel.py                                            # 1 and 2 ranks of one thread each
    python benchmarks/parallel.py --device cuda --ranks 1 2 4 8 --n-edits 4096

GPT-2 has random weights. Each turn starts its ranks anew, for every number of ranks one after the other: a step that
does not count, then the measured steps, then an edit. A time is that of the slowest rank, as on a clock, since ranks
wait for each other; memory is that of the largest one. Ratios are medians over turns. Two processes may share what a
processor can do: the script multiplies matrices on all ranks at once, too, and so tells how fast they could be.
Results go to ``benchmarks/results``.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import (
    add_size_options,
    changed_size,
    edited_layers,
    full_size_model,
    random_group,
    result_name,
    settings_on,
)

from malmen.config.hypernetwork import TrainingSettings
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer
from malmen.runtime.process_stats import highest_resident_bytes
from malmen.runtime.ranks import join, leave, ranks

MODEL = "gpt2"
Shifts = dict[str, torch.Tensor]
Turn = dict[str, Any]


def work(rank: int, size: int, port: int, folder: Path, arguments: argparse.Namespace) -> None:
    """Be one of the ranks of a turn: train, edit, and write what was measured."""
    torch.set_num_threads(arguments.threads)
    if size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
        join(arguments.device)
    found, shifts = measure(arguments)
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    if rank == 0:
        torch.save(shifts, folder / "shifts.pt")
    leave()


def measure(arguments: argparse.Namespace) -> tuple[Turn, dict[str, Shifts]]:
    """Train and edit; return seconds and peak memory of this rank, and the shifts before and after the training."""
    device = arguments.device
    model = full_size_model(MODEL, device, changed_size(MODEL, arguments))
    editor = HyperNetworkEditor.create(edited_layers(model, MODEL), settings_on(device), seed=0)
    trainer = MetaTrainer(model, editor, TrainingSettings())
    group = random_group(MODEL, arguments.n_edits)

    def edit() -> None:
        shifts["trained"] = editor.shifts(model, group.edit)

    shifts = {"untrained": on_cpu(editor.shifts(model, group.edit))}
    trainer.step(group)
    steps = [seconds(lambda: trainer.step(group), device) for _ in range(arguments.steps)]
    found = {"training step": statistics.median(steps), "whole edit": seconds(edit, device)}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else highest_resident_bytes()
    shifts["trained"] = on_cpu(shifts["trained"])
    together()
    return {"seconds": found, "peak_bytes": peak, "gemm_per_second": reporting.gemm_peak(device)}, shifts


def on_cpu(shifts: Shifts) -> Shifts:
    """Return shifts in main memory."""
    return {name: shift.cpu() for name, shift in shifts.items()}


def seconds(task: Callable[[], Any], device: str) -> float:
    """Return the seconds of a task that all ranks begin together."""
    reporting.settle(device)
    together()
    start = time.perf_counter()
    task()
    reporting.settle(device)
    return time.perf_counter() - start


def together() -> None:
    """Wait until all ranks are here."""
    ranks().sum_numbers(0)


def turn(size: int, arguments: argparse.Namespace) -> Turn:
    """Start so many ranks and return what they measured: the slowest's times, the largest's memory, and shifts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_processes(work, (size, free_port(), folder, arguments), nprocs=size, start_method="spawn")
        found = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(size)]
        return {
            "seconds": {what: max(of["seconds"][what] for of in found) for what in found[0]["seconds"]},
            "peak_bytes": max(of["peak_bytes"] for of in found),
            "gemm_per_second": sum(of["gemm_per_second"] for of in found),
            "shifts": torch.load(folder / "shifts.pt"),
        }


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def compared(turns: list[dict[int, Turn]]) -> list[dict[str, Any]]:
    """Return for each number of ranks its medians, and how it compares with the first number, turn by turn."""
    first = next(iter(turns[0]))
    results = []
    for size in turns[0]:
        own, base = [of[size] for of in turns], [of[first] for of in turns]
        pairs = list(zip(own, base, strict=True))
        result: dict[str, Any] = {"ranks": size}
        for what in own[0]["seconds"]:
            ratios = [theirs["seconds"][what] / mine["seconds"][what] for mine, theirs in pairs]
            result[what] = {"seconds": statistics.median(one["seconds"][what] for one in own)}
            result[what] |= {"speed-up": statistics.median(ratios), "of turns": ratios}
        result["peak_bytes"] = max(one["peak_bytes"] for one in own)
        gains = [mine["gemm_per_second"] / theirs["gemm_per_second"] for mine, theirs in pairs]
        result["speed-up of one product"] = statistics.median(gains)
        mine, theirs = pairs[0]
        result["difference"] = {
            when: distance(mine["shifts"][when], shifts) for when, shifts in theirs["shifts"].items()
        }
        results.append(result)
    return results


def distance(shifts: Shifts, others: Shifts) -> float:
    """Return the largest ||a - b|| / ||b|| of a layer's shift."""
    return max(float((shifts[name] - other).norm() / other.norm()) for name, other in others.items())


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2], help="the first is what others compare with")
    parser.add_argument("--n-edits", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a turn, after one warm-up step")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_size_options(parser)
    arguments = parser.parse_args()
    there = torch.cuda.device_count() if arguments.device == "cuda" else os.cpu_count() or 1
    if max(arguments.ranks) > there:
        sys.exit(f"{max(arguments.ranks)} ranks need as many {arguments.device} devices, and there are {there}.")
    torch.set_num_threads(arguments.threads)
    name = result_name(f"parallel_{arguments.device}_m{arguments.n_edits}", arguments)
    about = {key: getattr(arguments, key) for key in ("n_edits", "steps", "turns")}
    about |= {"model": MODEL, "device": reporting.device(arguments.device), "threads of a rank": arguments.threads}
    turns: list[dict[int, Turn]] = []
    for number in range(1, arguments.turns + 1):
        turns.append({size: turn(size, arguments) for size in arguments.ranks})
        measured = compared(turns)
        print(json.dumps(measured), flush=True)
        reporting.write(name, {**about, "measured": measured}, arguments.out, partial=number < arguments.turns)


if __name__ == "__main__":
    main()
