"""Measures the time to train MALMEN for 16,384 edits of GPT-J (6B, bfloat16), and to make them, on one GPU.

    python benchmarks/gptj.py                                                        # on a GPU of 80 GB or more
    python benchmarks/gptj.py --device cpu --n-edits 64 --blocks 7 --width 256       # a small one, anywhere

Weights and tokens are random. The script measures a few training steps, then an edit: keys and value gradients of all
edits, the shifts, and their addition. It extrapolates to one pass over zsRE's training tuples, which is 14 steps at
m = 16,384; the paper's time, on an A100, is 12.25 hours. The share of the floor compares with the time of the products
that ``floor.py`` counts at the speed of one large product: those of the language model in bfloat16, those of the editor
in float32. Results go to ``benchmarks/results``, the seconds of each part as soon as they are known.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import floor
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
from malmen.editing.capture import capture
from malmen.editing.layers import PostEditWeights
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer
from malmen.runtime.process_stats import highest_resident_bytes

TRAINING_TUPLES = 14 * 16_384
"""A lower bound of the training tuples in the authors' zsRE, of which the paper makes one pass."""
PAPER_HOURS = 12.25


def measure(
    arguments: argparse.Namespace, changed: dict[str, int], note: Callable[[dict[str, float]], None]
) -> dict[str, Any]:
    """Take a few training steps, then edit; return the seconds of each part, peak memory and batch sizes.

    ``note`` is given the seconds of the parts so far.
    """
    device = arguments.device
    model = full_size_model("gpt-j", device, changed)
    editor = HyperNetworkEditor.create(edited_layers(model, "gpt-j"), settings_on(device), seed=0)
    trainer = MetaTrainer(model, editor, TrainingSettings())
    seconds: dict[str, float] = {}

    def timed(what: str, task: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = task()
        reporting.settle(device)
        seconds[what] = time.perf_counter() - start
        print(f"{what}: {seconds[what]:.2f} s", flush=True)
        note(seconds)
        return result

    for number in range(1 + arguments.steps):
        group = random_group("gpt-j", arguments.n_edits, seed=number)
        timed(f"step {number}", lambda group=group: trainer.step(group))  # type: ignore[misc]
    captured = timed("keys and value gradients", lambda: capture(model, editor.layers, group.edit, editor.settings))
    shifts = timed("shifts", lambda: editor.aggregate(captured))
    timed("addition", lambda: PostEditWeights(editor.layers, shifts))
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else highest_resident_bytes()
    sizes = {"sequences": {purpose: size.items for (purpose, _), size in model.sizes.items()}}
    sizes["rows"] = {name: size.items for (name, _), size in editor.row_sizes.items()}
    return {"seconds": seconds, "peak_bytes": peak, "at once": sizes}


def extrapolated(seconds: dict[str, float], n_edits: int) -> dict[str, float]:
    """Return the hours of a whole training and one edit; the first step, which finds batch sizes, counts once."""
    first, *others = [taken for what, taken in seconds.items() if what.startswith("step ")]
    edit = sum(taken for what, taken in seconds.items() if not what.startswith("step "))
    step, steps = statistics.median(others), TRAINING_TUPLES // n_edits
    hours = (first + (steps - 1) * step + edit) / 3600
    return {"steps": steps, "step seconds": step, "edit seconds": edit, "hours": hours, "paper hours": PAPER_HOURS}


def share_of_floor(step: float, shape: floor.Shape, n_edits: int, device: str) -> dict[str, float]:
    """Return the minimum seconds of a step's products on this device, and their share of a step."""
    peaks = {dtype: reporting.gemm_peak(device, dtype) for dtype in (torch.bfloat16, torch.float32)}
    model, editor = floor.language_model(shape, n_edits)[0], floor.editor(shape, n_edits)[0]
    least = sum(model.values()) / peaks[torch.bfloat16] + sum(editor.values()) / peaks[torch.float32]
    names = {f"{dtype} operations a second": peak for dtype, peak in peaks.items()}
    return {**names, "floor seconds": least, "share of the floor": least / step}


def main() -> None:
    """Measure, extrapolate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--n-edits", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=2, help="measured steps, after one warm-up step")
    add_size_options(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU; for a small model on a CPU see --help.")
    shape = floor.shapes()["gpt-j"]
    blocks, width = arguments.blocks or shape.blocks, arguments.width or shape.width
    shape = floor.Shape(width, blocks, shape.head // shape.width * width, shape.answers, shape.weight_bytes)
    size = {"n_layer": blocks, "n_embd": width}
    about = {"device": reporting.device(arguments.device), "n_edits": arguments.n_edits, "model": size}
    name = result_name(f"gptj_{arguments.device}", arguments)

    def note(seconds: dict[str, float]) -> None:
        reporting.write(name, {**about, "seconds": seconds}, arguments.out, partial=True)

    found = measure(arguments, changed_size("gpt-j", arguments), note)
    whole = extrapolated(found["seconds"], arguments.n_edits)
    reached = share_of_floor(whole["step seconds"], shape, arguments.n_edits, arguments.device)
    result = {**about, **found, "extrapolated": whole, "floor": reached}
    print(json.dumps(result, indent=1))
    reporting.write(name, result, arguments.out)


if __name__ == "__main__":
    main()
