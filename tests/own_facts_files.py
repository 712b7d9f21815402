"""Tiny models, editors trained for them and files of facts, as a user has them, for the tests of ``malmen edit``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tiny_models import NAMES, architecture_of, edit_tuples, encoded_group, ffn_layers

from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture, Dtype
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.editor_file import TrainedFor, write_editor_file
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.memit.covariance import CollectedFrom, collect_key_covariance, encode_texts, write_key_covariance
from malmen.editing.training import MetaTrainer
from malmen.models.identity import dtype_for_editing, weights_digest
from malmen.models.language_model import LanguageModel


def save_editor(
    path: Path, model: LanguageModel, directory: Path, diverged: str | None = None, dtype: Dtype | None = None
) -> Path:
    """Train an editor by one step on 20 edits, and save it as one for the model in ``directory``."""
    settings = HyperNetworkSettings(rank=6, learning_rate=0.1)
    editor = HyperNetworkEditor.create(ffn_layers(model), settings, seed=3)
    MetaTrainer(model, editor, TrainingSettings()).step(encoded_group(model, 20))
    task, dtype = TASK_OF[architecture_of(model)], dtype_for_editing(directory, dtype)
    write_editor_file(
        path, editor, TrainedFor("tiny", weights_digest(directory), task, "MALMEN", 20, 3, dtype, diverged)
    )
    return path


def save_key_covariance(path: Path, model: LanguageModel, layers: Sequence[EditedLayer], directory: Path) -> Path:
    """Save the covariance of keys in layers of a GPT-2, which lies in ``directory``."""
    prompts = [item.edit.prompt for item in edit_tuples("gpt2", 28)]
    covariance, n_tokens = collect_key_covariance(model, layers, encode_texts(model, prompts, 1000), 8)
    write_key_covariance(
        path, covariance, asdict(CollectedFrom("tiny", weights_digest(directory), n_tokens, "prompts"))
    )
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


def write_facts_for_memit(path: Path, n: int) -> Path:
    """Write the edits of the tiny tuples as facts, of which every other one states its subject."""
    tuples = edit_tuples("gpt2", n)
    facts = [{**asdict(item.edit), "rephrasings": item.equivalent} for item in tuples]
    return write_lines(path, (fact | {"subject": NAMES[i % 7]} if i % 2 else fact for i, fact in enumerate(facts)))


def into_parts(folder: Path, n: int) -> None:
    """Split the weights in a directory into parts with an index, and metadata of their own."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {name: f"model-{i % n + 1:05}-of-{n:05}.safetensors" for i, name in enumerate(tensors)}
    for part in set(placed.values()):
        inside = {name: tensor for name, tensor in tensors.items() if placed[name] == part}
        save_file(inside, folder / part, metadata={"format": "pt", "of": "mine"})
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
