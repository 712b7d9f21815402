"""Compares training and editing in this package and in the official code, in turns on the same inputs.

    python benchmarks/compare.py --official ../malmen                    # a clone of github.com/ChenmienTan/malmen
    python benchmarks/compare.py                                          # this package alone
    python benchmarks/compare.py --official ../malmen --device cuda --models gpt2 --n-edits 4096

Each code runs in a process of its own, after a warm-up, in turns with the other. On a CPU the script measures processor
time, which other work on the machine changes little; on a GPU it measures the time until the GPU is idle. Times are
medians over the turns, ratios medians over pairs of turns. A third variant is a training step that reads the cache of
base outputs (``malmen.editing.base_outputs``). Results go to ``benchmarks/results``. ``benchmarks/agreement.py``
compares the results of the two codes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import (
    COMPARED,
    LAYERS,
    add_size_options,
    changed_size,
    edited_layers,
    full_size_model,
    random_group,
    result_name,
    settings_on,
)
from official import COMMIT, Official, official_batches

from malmen.config.hypernetwork import TrainingSettings
from malmen.editing.base_outputs import CachedBaseOutputs, CacheKey
from malmen.editing.capture import capture
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import EncodedGroup, MetaTrainer
from malmen.models.language_model import LanguageModel
from malmen.runtime.process_stats import highest_resident_bytes

Task = Callable[[], Any]
Prepared = Callable[[], Task]
"""Returns a task that is ready to measure."""
CODES = ("ours", "cached", "official")
"""The compared codes; "cached" is this package with the cache of base outputs."""
MEASURED = {"training step": CODES, "aggregation": ("ours", "official"), "whole edit": ("ours", "official")}
"""The measured tasks, and the codes of each. Aggregation begins with cached rows, a whole edit with encoded tuples."""


@dataclass(frozen=True)
class Point:
    """A model and a value of m."""

    model: str
    n_edits: int
    lengths: tuple[int, int]
    device: str
    changed: dict[str, int]

    def load(self) -> tuple[LanguageModel, HyperNetworkEditor, EncodedGroup]:
        """Make the model, an untrained editor and a group of tuples."""
        model = full_size_model(self.model, self.device, self.changed)
        editor = HyperNetworkEditor.create(edited_layers(model, self.model), settings_on(self.device), seed=0)
        return model, editor, random_group(self.model, self.n_edits, lengths=self.lengths)

    def measure(self, task: Task) -> dict[str, float]:
        """Run a task; return its time, the elapsed time, and this process's peak memory so far."""
        reporting.settle(self.device)
        start, processor_start = time.perf_counter(), time.process_time()
        task()
        reporting.settle(self.device)
        elapsed, taken = time.perf_counter() - start, time.process_time() - processor_start
        on_gpu = self.device == "cuda"
        peak = torch.cuda.max_memory_allocated() if on_gpu else highest_resident_bytes()
        return {"seconds": elapsed if on_gpu else taken, "elapsed": elapsed, "peak_bytes": peak}


def our_tasks(point: Point) -> dict[str, Prepared]:
    """Return the tasks of this package."""
    model, editor, group = point.load()
    trainer = MetaTrainer(model, editor, TrainingSettings())
    return {
        "training step": lambda: partial(trainer.step, group),
        "aggregation": lambda: partial(editor.aggregate, capture(model, editor.layers, group.edit, editor.settings)),
        "whole edit": lambda: partial(editor.shifts, model, group.edit),
    }


def cached_tasks(point: Point, folder: Path) -> dict[str, Prepared]:
    """Return the tasks of this package with the cache of base outputs."""
    model, editor, group = point.load()
    trainer = MetaTrainer(model, editor, TrainingSettings(), base_outputs=written_cache(model, editor, group, folder))
    return {"training step": lambda: partial(trainer.step, group)}


def written_cache(
    model: LanguageModel, editor: HyperNetworkEditor, group: EncodedGroup, folder: Path
) -> CachedBaseOutputs:
    """Write the cache of base outputs, and open it."""
    contents = CacheKey("random", [layer.name for layer in editor.layers], editor.settings.tokens)
    prompts = [*group.edit, *group.equivalent, *group.unrelated]
    cache = CachedBaseOutputs(model, editor.layers, editor.settings.tokens, group.edit, prompts)
    cache.write(folder, contents, editor.settings.batch_size)
    return CachedBaseOutputs.open(folder, model, editor.layers, contents)


def official_tasks(point: Point, folder: Path, checkout: Path) -> dict[str, Prepared]:
    """Return the tasks of the official code."""
    model, editor, group = point.load()
    official = Official(checkout, model, editor, point.n_edits, folder)
    batches = official_batches(model, group)

    def aggregation() -> Task:
        official.cache(batches)
        return official.shifts

    def edit() -> None:
        official.cache(batches)
        official.shifts()

    return {
        "training step": lambda: partial(official.step, batches),
        "aggregation": aggregation,
        "whole edit": lambda: edit,
    }


def work(arguments: argparse.Namespace) -> None:
    """Measure one code in this process: each line of the input names a task, each line of the output is its result.

    A task is prepared before its first run, so that a training step's memory excludes later tasks.
    """
    torch.set_num_threads(arguments.threads)
    lengths = tuple(arguments.lengths)
    name = arguments.models[0]
    point = Point(name, arguments.n_edits[0], lengths, arguments.device, changed_size(name, arguments))
    with tempfile.TemporaryDirectory() as folder:
        codes: dict[str, Callable[[], dict[str, Prepared]]] = {
            "ours": lambda: our_tasks(point),
            "cached": lambda: cached_tasks(point, Path(folder)),
            "official": lambda: official_tasks(point, Path(folder), arguments.official),
        }
        prepared, tasks = codes[arguments.work](), dict[str, Task]()
        for what in map(str.strip, sys.stdin):
            tasks[what] = tasks.get(what) or prepared[what]()
            print(json.dumps(point.measure(tasks[what])), flush=True)


class Worker:
    """A process that measures one code."""

    def __init__(self, code: str, name: str, n_edits: int, arguments: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--work", code, "--models", name, "--n-edits", str(n_edits)]
        command += ["--threads", str(arguments.threads), "--lengths", *map(str, arguments.lengths)]
        command += ["--device", arguments.device]
        for option in ("blocks", "width"):
            command += [f"--{option}", str(getattr(arguments, option))] if getattr(arguments, option) else []
        command += ["--official", str(arguments.official)] if arguments.official else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, what: str) -> dict[str, float]:
        """Run a task."""
        assert self.process.stdin and self.process.stdout
        print(what, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"The process that was to measure {what!r} ended; its error is above.")
        measured: dict[str, float] = json.loads(answer)
        return measured

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, n_edits: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one model at one m."""
    asked = {code for what in arguments.tasks for code in MEASURED[what]}
    codes = [code for code in CODES if code in asked and (code != "official" or arguments.official)]
    workers = {code: Worker(code, name, n_edits, arguments) for code in codes}
    result: dict[str, Any] = {"model": name, "n_edits": n_edits, "lengths": arguments.lengths}
    result |= {"repetitions": arguments.repetitions, "warm_up": arguments.warm_up}
    for what in arguments.tasks:
        compared = MEASURED[what]
        turns = [
            {code: workers[code].measure(what) for code in compared if code in workers}
            for _ in range(arguments.warm_up + arguments.repetitions)
        ]
        result[what] = summary(turns[arguments.warm_up :])
    for worker in workers.values():
        worker.close()
    return result


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return each code's medians, and the ratios of its times to those of the first code."""
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
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=COMPARED)
    parser.add_argument("--n-edits", nargs="+", type=int, default=[64], help="also 512, which takes minutes a step")
    parser.add_argument("--tasks", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--lengths", nargs=2, type=int, default=[16, 16], help="shortest and longest sequence")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that do not count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--name", help="name of the result file; by default it tells m, and a GPU")
    add_size_options(parser)
    parser.add_argument("--work", choices=CODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments)
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    stem = arguments.name or f"compare{'_cuda' if on_gpu else ''}_m{'-'.join(map(str, arguments.n_edits))}"
    result = {
        "official_commit": COMMIT if arguments.official else None,
        "device": reporting.device(arguments.device),
        "gemm_per_second": reporting.gemm_peak(arguments.device),
    }
    measured: list[dict[str, Any]] = []
    for n_edits in arguments.n_edits:
        for name in arguments.models:
            measured.append(compare(name, n_edits, arguments))
            print(json.dumps(measured[-1]), flush=True)
            partial = len(measured) < len(arguments.n_edits) * len(arguments.models)
            reporting.write(result_name(stem, arguments), {**result, "measured": measured}, arguments.out, partial)
    return None


if __name__ == "__main__":
    main()
