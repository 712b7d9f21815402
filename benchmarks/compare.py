"""Training and editing, this package against the official code, in turns on the same inputs.

    python benchmarks/compare.py --official ../malmen                    # a clone of github.com/ChenmienTan/malmen
    python benchmarks/compare.py                                          # this package alone

Each code runs in a process of its own, warmed up first, and takes turns with the other. What counts is processor time,
which other work on the machine changes little; times are medians over the turns, ratios medians over their pairs.
Results go to ``benchmarks/results``. What the two compute is compared by ``benchmarks/agreement.py``.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import LAYERS, edited_layers, full_size_model, random_group
from official import COMMIT, Official, official_batches

from malmen.editing.editor import HyperNetworkEditor
from malmen.editing.training import MetaTrainer
from malmen.settings import HyperNetworkSettings, TrainingSettings

Task = Callable[[], Any]
WHAT = ("training step", "editing")


def seconds(task: Task) -> tuple[float, float]:
    """Return the processor time and the time that a task takes."""
    start, processor_start = time.perf_counter(), time.process_time()
    task()
    return time.process_time() - processor_start, time.perf_counter() - start


def our_tasks(name: str, n_edits: int, lengths: tuple[int, int]) -> dict[str, Task]:
    """Return what is measured of this package."""
    model = full_size_model(name)
    editor = HyperNetworkEditor.create(edited_layers(model, name), HyperNetworkSettings(), seed=0)
    trainer = MetaTrainer(model, editor, TrainingSettings())
    group = random_group(name, n_edits, lengths=lengths)
    captured = editor.capture(model, group.edits)
    return dict(zip(WHAT, (lambda: trainer.step(group), lambda: editor.aggregate(captured)), strict=True))


def official_tasks(name: str, n_edits: int, lengths: tuple[int, int], checkout: Path, cache: Path) -> dict[str, Task]:
    """Return what is measured of the official code."""
    model = full_size_model(name)
    editor = HyperNetworkEditor.create(edited_layers(model, name), HyperNetworkSettings(), seed=0)
    official = Official(checkout, model, editor, n_edits, cache)
    batches = official_batches(model, random_group(name, n_edits, lengths=lengths))
    official.cache(batches)
    return dict(zip(WHAT, (lambda: official.step(batches), official.shifts), strict=True))


def work(arguments: argparse.Namespace) -> None:
    """Measure one code in this process: a task for every line of the input, a line of output for each."""
    torch.set_num_threads(arguments.threads)
    what = arguments.models[0], arguments.n_edits[0], tuple(arguments.lengths)
    with tempfile.TemporaryDirectory() as cache:
        official = arguments.work == "official"
        tasks = official_tasks(*what, arguments.official, Path(cache)) if official else our_tasks(*what)
        for line in sys.stdin:
            taken, elapsed = seconds(tasks[line.strip()])
            # Linux gives the peak in KiB.
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"seconds": taken, "elapsed": elapsed, "peak_bytes": peak}), flush=True)


class Worker:
    """A process that measures one code."""

    def __init__(self, code: str, name: str, n_edits: int, arguments: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--work", code, "--models", name, "--n-edits", str(n_edits)]
        command += ["--threads", str(arguments.threads), "--lengths", *map(str, arguments.lengths)]
        command += ["--official", str(arguments.official)] if arguments.official else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, what: str) -> dict[str, float]:
        """Run a task."""
        assert self.process.stdin and self.process.stdout
        print(what, file=self.process.stdin, flush=True)
        measured: dict[str, float] = json.loads(self.process.stdout.readline())
        return measured

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, n_edits: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one model at one m."""
    codes = ["ours", "official"] if arguments.official else ["ours"]
    workers = {code: Worker(code, name, n_edits, arguments) for code in codes}
    result: dict[str, Any] = {"model": name, "n_edits": n_edits, "lengths": arguments.lengths}
    result |= {"repetitions": arguments.repetitions, "warm_up": arguments.warm_up}
    for what in WHAT:
        turns = [
            {code: worker.measure(what) for code, worker in workers.items()}
            for _ in range(arguments.warm_up + arguments.repetitions)
        ]
        result[what] = summary(turns[arguments.warm_up :])
    for worker in workers.values():
        worker.close()
    return result


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return each code's medians, and by how much more processor time it takes than the first."""
    first = next(iter(turns[0]))
    return {
        code: {key: statistics.median(turn[code][key] for turn in turns) for key in turns[0][code]}
        | {"ratio": statistics.median(turn[code]["seconds"] / turn[first]["seconds"] for turn in turns)}
        for code in turns[0]
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help=f"clone of the official repository at commit {COMMIT}")
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--n-edits", nargs="+", type=int, default=[64], help="also 512, which takes minutes a step")
    parser.add_argument("--lengths", nargs=2, type=int, default=[16, 16], help="shortest and longest sequence")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that do not count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="compare", help="name of the result file")
    parser.add_argument("--work", choices=("ours", "official"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments)
    torch.set_num_threads(arguments.threads)
    result = {"official_commit": COMMIT if arguments.official else None, "gemm_per_second": reporting.gemm_peak()}
    measured: list[dict[str, Any]] = []
    for n_edits in arguments.n_edits:
        for name in arguments.models:
            measured.append(compare(name, n_edits, arguments))
            print(json.dumps(measured[-1]), flush=True)
            reporting.write(arguments.name, {**result, "measured": measured})
    return None


if __name__ == "__main__":
    main()
