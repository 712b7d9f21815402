"""Saving a trained editor and loading it again."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import SHAPES, encoded_group, ffn_layers, tiny_model
from torch import nn

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.editor_file import TrainedFor, read_editor_file, write_editor_file
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers
from malmen.models.scratch import new_model

SETTINGS = HyperNetworkSettings(rank=6, aggregation="sum", tokens="all", learning_rate=1e-2)
ABOUT = TrainedFor("tiny", "0123abcd", "question_answering", "MALMEN", n_edits=20, seed=3, dtype="float32")


def saved(path: Path, model: LanguageModel | None = None) -> HyperNetworkEditor:
    """Save a trained editor of a GPT-2 in float32."""
    model = model or tiny_model("gpt2", torch.float32)
    editor = HyperNetworkEditor.create([*ffn_layers(model, "first"), *ffn_layers(model)], SETTINGS, seed=3)
    MetaTrainer(model, editor, TrainingSettings()).step(encoded_group(model, 20))
    write_editor_file(path, editor, ABOUT)
    return editor


def candidates(module: nn.Module) -> list[EditedLayer]:
    return [EditedLayer(name, layer) for name, layer in linear_layers(module).items()]


def test_an_editor_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "editor.safetensors"
    model = tiny_model("gpt2", torch.float32)
    editor = saved(path, model)
    loaded = read_editor_file(path, candidates(model.module))
    assert loaded.settings == SETTINGS
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in editor.layers]
    tensors = loaded.networks.state_dict()
    assert tensors.keys() == editor.networks.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in editor.networks.state_dict().items())
    edits = encoded_group(model, 28).edit
    expected = editor.shifts(model, edits)
    assert all(torch.equal(shift, expected[name]) for name, shift in loaded.shifts(model, edits).items())


def test_the_same_editor_is_the_same_bytes(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_an_editor_was_trained_for_is_read_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "editor"
    editor = saved(path)
    diverged = replace(ABOUT, diverged="so")
    write_editor_file(path, editor, diverged)
    assert TrainedFor.read(path) == diverged


def test_an_editor_that_does_not_say_its_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "editor"
    header = {"settings": asdict(SETTINGS), "layers": [], "about": {"model": "tiny", "n_edits": 20}}
    save_file({"weight": torch.zeros(2)}, path, metadata={"malmen_editor": json.dumps(header)})
    with pytest.raises(UserError, match=f"{path} does not say which model"):
        TrainedFor.read(path)


def refused(path: Path, module: nn.Module) -> str:
    """Return why loading is refused; one sentence that names the file."""
    with pytest.raises(UserError) as caught:
        read_editor_file(path, candidates(module))
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message
    return message


def test_another_models_editor_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "editor")
    message = refused(tmp_path / "editor", tiny_model("bert").module)
    assert "layer transformer.h.1.mlp.c_fc" in message


def test_an_editor_for_other_sizes_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "editor")
    wider = new_model(replace(SHAPES["gpt2"], hidden_size=32), tiny_model("gpt2").tokenizer)
    assert "trained for layers of other sizes" in refused(tmp_path / "editor", wider)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "folder", "other tensors", "other settings"])
def test_a_file_that_is_no_editor_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "editor"
    if damage == "truncated":
        saved(path)
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("hello, this is no editor", encoding="utf-8")
    elif damage == "folder":
        path.mkdir()
    elif damage == "other tensors":
        save_file({"weight": torch.zeros(2)}, path)
    elif damage == "other settings":
        header = {"settings": {"rank": 6, "depth": 4}, "layers": ["transformer.h.1.mlp.c_fc"], "about": {}}
        save_file({"weight": torch.zeros(2)}, path, metadata={"malmen_editor": json.dumps(header)})
    message = refused(path, tiny_model("gpt2").module)
    assert "cannot be read as a trained editor" in message


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path) -> None:
    model = tiny_model("gpt2", torch.float32)
    editor = HyperNetworkEditor.create(ffn_layers(model), SETTINGS, seed=0)
    with pytest.raises(TypeError):
        write_editor_file(tmp_path / "editor", editor, replace(ABOUT, diverged=object()))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
