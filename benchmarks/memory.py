"""Measures peak memory against the number of edits m: a training step and an edit, each in a process of its own.

    python benchmarks/memory.py                                             # GPT-2, m = 32 and 512
    python benchmarks/memory.py --n-edits 32 8192 --length 8                # an hour or more on one thread

Short sequences take less time and give the same cached rows. On a CPU the peak is the largest resident size, including
interpreter and libraries; on a GPU it is the peak of the allocator. Automatic batch sizes on a GPU grow with m; to see
the effect of m alone, set them, as in ``--device cuda --rows-per-batch 256``. Results go to ``benchmarks/results``.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting
from full_size import (
    LAYERS,
    add_size_options,
    changed_size,
    edited_layers,
    full_size_model,
    random_group,
    result_name,
)

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer
from malmen.runtime.process_stats import highest_resident_bytes

SETTINGS = ("model", "device", "length", "rows_bytes", "batch_size", "rows_per_batch")
"""The settings of all points."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one step, or edit, for the single m of the arguments; return time and peak memory of this process."""
    (n_edits,) = arguments.n_edits
    (what,) = arguments.what
    torch.set_num_threads(arguments.threads)
    model = full_size_model(arguments.model, arguments.device, changed_size(arguments.model, arguments))
    settings = HyperNetworkSettings(
        rows_bytes=arguments.rows_bytes, batch_size=arguments.batch_size, rows_per_batch=arguments.rows_per_batch
    )
    editor = HyperNetworkEditor.create(edited_layers(model, arguments.model), settings, seed=0)
    trainer = MetaTrainer(model, editor, TrainingSettings())
    group = random_group(arguments.model, n_edits, lengths=(arguments.length, arguments.length))
    if what == "training step":  # Adam's moments are there from the first step on: measured is any later one.
        trainer.step(random_group(arguments.model, min(n_edits, 32), lengths=(arguments.length, arguments.length)))
    reporting.settle(arguments.device)
    start = time.perf_counter()
    if what == "training step":
        trainer.step(group)
    else:
        editor.shifts(model, group.edit)
    reporting.settle(arguments.device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if arguments.device == "cuda" else highest_resident_bytes()
    return {"what": what, "n_edits": n_edits, "peak_bytes": peak, "seconds": round(seconds, 1)}


def measure_apart(arguments: argparse.Namespace, what: str, n_edits: int) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--alone", "--what", what, "--n-edits", str(n_edits)]
    for name in (*SETTINGS, "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    for name in ("blocks", "width"):
        command += [f"--{name}", str(getattr(arguments, name))] if getattr(arguments, name) else []
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def batch_size(text: str) -> int | str:
    """Read a number of sequences or rows, or "auto"."""
    return text if text == "auto" else int(text)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=LAYERS, default="gpt2")
    parser.add_argument("--n-edits", nargs="+", type=int, default=[32, 512])
    kinds = ["training step", "editing"]
    parser.add_argument("--what", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--length", type=int, default=16, help="tokens per sequence")
    parser.add_argument("--rows-bytes", type=int, default=2**26, help="the setting rows_bytes")
    parser.add_argument("--batch-size", type=batch_size, default=32, help='sequences at once; "auto" on a GPU grows it')
    parser.add_argument("--rows-per-batch", type=batch_size, default="auto", help="the setting of that name; likewise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_size_options(parser)
    parser.add_argument("--alone", action="store_true", help="measure one m in this process, and write no result file")
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments)))
        return
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    kind = f"_{arguments.what[0].replace(' ', '_')}" if len(arguments.what) == 1 else ""
    stem = result_name(f"memory_{arguments.model}_{arguments.device}{kind}", arguments)
    measured: list[dict[str, Any]] = []
    for what in arguments.what:
        peaks = []
        for n_edits in arguments.n_edits:
            measured.append(measure_apart(arguments, what, n_edits))
            peaks.append(measured[-1]["peak_bytes"])
            measured[-1]["ratio to the first"] = round(peaks[-1] / peaks[0], 3)
            print(measured[-1], flush=True)
            partial = len(measured) < len(arguments.what) * len(arguments.n_edits)
            reporting.write(stem, {**settings, "measured": measured}, arguments.out, partial)


if __name__ == "__main__":
    main()
