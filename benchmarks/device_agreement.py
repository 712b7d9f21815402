"""Compares metrics on a GPU and on the CPU: trains and measures one editor on both, with plain Python.

    python benchmarks/device_agreement.py --models results/demo/models --data data/demo/world

It prints ES, GS and LS on both devices, writes them to ``benchmarks/results/device_agreement.json``, and exits with 1
if any differs by more than 0.02.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting

from malmen.config.base import FfnPatterns, TaskName
from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run

FFN: dict[str, FfnPatterns] = {
    "bert": {"second": [r"bert\.encoder\.layer\.\d+\.output\.dense"]},
    "gpt2": {"second": [r"transformer\.h\.\d+\.mlp\.c_proj"]},
}
METRICS = ("ES", "GS", "LS")
TOLERANCE = 0.02


def measure(name: str, arguments: argparse.Namespace, device: str) -> dict[str, float]:
    """Train MALMEN on one device and return the metrics of its edits."""
    task: TaskName = "fact_checking" if name == "bert" else "question_answering"
    dataset = "fever" if name == "bert" else "zsre"
    data = arguments.data / dataset
    spec = ModelSpec(name, name, dataset, task, "float32", arguments.models / name / "finetuned", FFN[name])
    settings = HyperNetworkEditorSettings(
        label="MALMEN",
        last_blocks=2,
        hypernetwork=HyperNetworkSettings(rank=256, learning_rate=1e-3, batch_size=64),
        training=TrainingSettings(meta_learning_rate=1e-4, min_steps=arguments.steps, max_steps=arguments.steps),
    )
    machine = Machine(device, threads=1)
    folder = arguments.scratch / name / device
    run = Run(arguments.n_edits, seed=0)
    train_editors(spec, settings, data / "train.jsonl", [run], folder, machine)
    editor = EditorSpec("malmen", settings, trained=(folder,))
    measured, *_ = evaluate_editor(spec, editor, data / "validation.jsonl", [run], {arguments.n_edits: 4}, machine)
    return {metric: measured.runs[0].mean(metric) for metric in METRICS}


def main() -> int:
    """Compare the devices; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("results/demo/models"))
    parser.add_argument("--data", type=Path, default=Path("data/demo/world"))
    parser.add_argument("--scratch", type=Path, default=Path("results/device_agreement"))
    parser.add_argument("--out", type=Path, default=reporting.RESULTS, help="folder of the result")
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), default=["cpu", "cuda"])
    parser.add_argument("--n-edits", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    if "cuda" in arguments.devices and not torch.cuda.is_available():
        print("torch finds no GPU: nothing to compare.", file=sys.stderr)
        return 2
    metrics = {name: {device: measure(name, arguments, device) for device in arguments.devices} for name in FFN}
    values = [[m[device][key] for device in arguments.devices] for m in metrics.values() for key in METRICS]
    gaps = [max(found) - min(found) for found in values]
    about = {"devices": [reporting.device(device) for device in arguments.devices], "n_edits": arguments.n_edits}
    result = {**about, "steps": arguments.steps, "metrics": metrics, "largest_gap": max(gaps), "allowed": TOLERANCE}
    reporting.write("device_agreement", result, arguments.out)
    print(json.dumps(result, indent=1))
    return int(max(gaps) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
