"""Train editors for a tiny GPT-2 in a process that may be killed: ``python trained_apart.py FOLDER OUT``."""

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from tiny_models import FFN, edit_tuples, save_model, tiny_model

from malmen.jobs.job import logged
from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.data.tuples import write_jsonl
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run
from malmen.runtime.checkpoint import Saving

SETTINGS = HyperNetworkEditorSettings(
    label="MALMEN",
    last_blocks=2,
    hypernetwork=HyperNetworkSettings(rank=6, learning_rate=0.1),
    training=TrainingSettings(meta_learning_rate=1e-3, min_steps=40),
)


def prepare(folder: Path) -> None:
    """Write the model and the tuples."""
    save_model(folder / "model", tiny_model("gpt2", torch.float32))
    write_jsonl(folder / "train.jsonl", map(asdict, edit_tuples("gpt2", 28)))


def train(folder: Path, out: Path, saving: Saving, settings: HyperNetworkEditorSettings = SETTINGS) -> None:
    """Train two editors."""
    spec = ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", folder / "model", FFN["gpt2"])
    train_editors(spec, settings, folder / "train.jsonl", [Run(8, 0), Run(20, 1)], out, Machine(), saving)


if __name__ == "__main__":
    inputs, target = map(Path, sys.argv[1:])
    with logged(inputs / "log.txt"):
        train(inputs, target, Saving(inputs / "state", every_seconds=0))
