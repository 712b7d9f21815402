"""Compares metrics on a GPU and on the CPU: trains and measures one editor on both, with plain Python.

    python benchmarks/device_agreement.py

It makes the demo's world, BERT and GPT-2 by itself on the first device, which takes a minute on one core, and trains
and measures MALMEN for them on each device. It prints ES, GS and LS on all devices, writes them to
``benchmarks/results/device_agreement.json``, and exits with 1 if any differs by more than 0.02.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting

from malmen.config.configuration import Config
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.load import load_file
from malmen.config.world import WorldSettings
from malmen.data.world import build_fever, build_zsre
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.finetune_model import finetune_model
from malmen.jobs.pretrain_model import pretrain_model
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run

CONFIGS = Path(__file__).parents[1] / "config"
BUILDERS: dict[str, Callable[[WorldSettings, dict[str, int], int, Path], None]] = {
    "bert": build_fever,
    "gpt2": build_zsre,
}
METRICS = ("ES", "GS", "LS")
TOLERANCE = 0.02


def make_model(name: str, config: Config, folder: Path, machine: Machine) -> ModelSpec:
    """Make a data set of the world and a model that knows its facts, as the demo does."""
    settings, data = config.models[name], folder / "data"
    BUILDERS[name](config.data.world, config.data.split.shares, config.data.split.seed, data)
    pretrained, finetuned = folder / "pretrained", folder / "finetuned"
    assert settings.scratch and settings.pretraining and settings.base_finetuning
    pretrain_model(name, data / "text.txt", settings.scratch, settings.pretraining, settings.seed, pretrained, machine)
    assert settings.label and settings.dataset and settings.task and settings.dtype
    about = (name, settings.label, settings.dataset, settings.task, settings.dtype)
    spec = ModelSpec(*about, pretrained, settings.ffn.patterns())
    finetune_model(spec, data / "finetune.jsonl", settings.base_finetuning, settings.seed, finetuned, machine)
    return replace(spec, directory=finetuned)


def measure(
    spec: ModelSpec, settings: HyperNetworkEditorSettings, folder: Path, n_edits: int, machine: Machine
) -> dict[str, float]:
    """Train MALMEN on one device and return the metrics of its edits."""
    run, data, trained = Run(n_edits, seed=0), folder / "data", folder / machine.device
    train_editors(spec, settings, data / "train.jsonl", [run], trained, machine)
    editor = EditorSpec("malmen", settings, trained=(trained,))
    measured, *_ = evaluate_editor(spec, editor, data / "validation.jsonl", [run], {n_edits: 4}, machine)
    return {metric: measured.runs[0].mean(metric) for metric in METRICS}


def compare(name: str, config: Config, folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the metrics of a model's edits by device."""
    machines = [Machine(device, threads=1) for device in arguments.devices]
    spec = make_model(name, config, folder, machines[0])
    settings = config.models[name].editors["malmen"]
    assert isinstance(settings, HyperNetworkEditorSettings)
    training = replace(settings.training, min_steps=arguments.steps, max_steps=arguments.steps)
    settings = replace(settings, training=training)
    return {machine.device: measure(spec, settings, folder, arguments.n_edits, machine) for machine in machines}


def main() -> int:
    """Compare the devices; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=reporting.RESULTS, help="folder of the result")
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), default=["cpu", "cuda"])
    parser.add_argument("--n-edits", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--small", action="store_true", help="the smaller world and models of config/test.yaml, to try the script"
    )
    arguments = parser.parse_args()
    if "cuda" in arguments.devices and not torch.cuda.is_available():
        print("torch finds no GPU: nothing to compare.", file=sys.stderr)
        return 2
    config = load_file(CONFIGS / ("test.yaml" if arguments.small else "demo.yaml"))
    about = {"devices": [reporting.device(device) for device in arguments.devices], "n_edits": arguments.n_edits}
    about |= {"steps": arguments.steps, "allowed": TOLERANCE}
    name = "small_device_agreement" if arguments.small else "device_agreement"
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    gaps: list[float] = []
    for model in BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            metrics[model] = compare(model, config, Path(folder), arguments)
        values = [[of[key] for of in metrics[model].values()] for key in METRICS]
        gaps += [max(found) - min(found) for found in values]
        result = {**about, "metrics": metrics, "largest_gap": max(gaps)}
        reporting.write(name, result, arguments.out, partial=len(metrics) < len(BUILDERS))
        print(json.dumps({model: metrics[model]}), flush=True)
    print(f"largest difference {max(gaps):.4f}, allowed {TOLERANCE}")
    return int(max(gaps) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
