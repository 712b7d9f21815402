"""Tiny models, editors trained for them and files of facts, as a user has them, for the tests of ``malmen edit``."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tiny_models import architecture_of, edit_tuples, encoded_group, ffn_layers

from malmen.editing.editor import HyperNetworkEditor, TrainedFor
from malmen.editing.training import MetaTrainer
from malmen.models.identity import weights_digest
from malmen.models.language_model import LanguageModel
from malmen.settings import Architecture, HyperNetworkSettings, TaskName, TrainingSettings

TASKS: dict[Architecture, TaskName] = {"bert": "fact_checking", "gpt2": "question_answering"}


def save_model(folder: Path, model: LanguageModel) -> Path:
    """Save a model and its tokenizer as an ordinary directory."""
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def save_editor(path: Path, model: LanguageModel, directory: Path, diverged: str | None = None) -> Path:
    """Train an editor by one step on 20 edits, and save it as one for the model in ``directory``."""
    settings = HyperNetworkSettings(rank=6, learning_rate=0.1)
    editor = HyperNetworkEditor.create(ffn_layers(model), settings, seed=3)
    MetaTrainer(model, editor, TrainingSettings()).step(encoded_group(model, 20))
    task = TASKS[architecture_of(model)]
    editor.save(path, asdict(TrainedFor("tiny", weights_digest(directory), task, "MALMEN", 20, 3, diverged)))
    return path


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_facts(path: Path, architecture: Architecture, n: int, rephrasings: int = 1) -> Path:
    """Write the edits of the tiny tuples as facts, each with its first ``rephrasings``."""
    return write_lines(
        path,
        ({**asdict(item.edit), "rephrasings": item.equivalent[:rephrasings]} for item in edit_tuples(architecture, n)),
    )


def write_unrelated(path: Path, architecture: Architecture, n: int) -> Path:
    """Write the unrelated parts of the tiny tuples."""
    return write_lines(path, (asdict(item.unrelated) for item in edit_tuples(architecture, n)))
