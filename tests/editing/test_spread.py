"""A model that accelerate's hooks spread over devices is edited as one that lies on one device.

The machine that runs the tests may have no second device, so both are the CPU: the hooks are there and move nothing.
"""

from pathlib import Path

import pytest
import torch
from tiny_models import (
    FFN,
    architecture_of,
    edit_tuples,
    encoded_group,
    ffn_layers,
    tiny_editor,
    tiny_model,
    tiny_tokenizer,
)

from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.capture import capture
from malmen.editing.editor_file import TrainedFor, read_editor_file, write_editor_file
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer, encode_edits
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model

accelerate = pytest.importorskip("accelerate")
HYPER = HyperNetworkSettings(rank=4, learning_rate=1e-2, batch_size=3)


def spread(model: LanguageModel) -> LanguageModel:
    """Let accelerate put hooks on all modules that hold parameters."""
    places = {name.rpartition(".")[0]: "cpu" for name in model.module.state_dict()}
    accelerate.dispatch_model(model.module, places, main_device="cpu", force_hooks=True)
    return model


def trained(model: LanguageModel, settings: HyperNetworkSettings = HYPER) -> tuple[float, list[torch.Tensor]]:
    """Return the locality loss of a meta-step, and the shifts of some edits after it."""
    editor = tiny_editor(model, settings)
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-3))
    losses = trainer.step(encoded_group(model, 6))
    shifts = editor.shifts(model, encode_edits(model, edit_tuples(architecture_of(model), 4)))
    return losses.locality, list(shifts.values())


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "gptj", "t5", "bart"])
def test_hooks_change_nothing(architecture: Architecture) -> None:
    model = spread(tiny_model(architecture))
    hooked = [module for module in model.module.modules() if hasattr(module, "_hf_hook")]
    kept = [module.forward for module in hooked]
    assert len(hooked) > 10
    loss, shifts = trained(model)
    expected_loss, expected = trained(tiny_model(architecture))
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(shifts, expected, strict=True))
    assert [module.forward for module in hooked] == kept  # also of the blocks that were skipped for a while


def test_the_editor_may_lie_on_another_device() -> None:
    model = tiny_model("gpt2")
    editor = HyperNetworkEditor.create(ffn_layers(model), HyperNetworkSettings(rank=4, device="meta"), seed=0)
    assert editor.device.type == "meta" and model.device.type == "cpu"
    captured = capture(
        model, editor.layers, encode_edits(model, edit_tuples("gpt2", 3)), editor.settings, editor.device
    )
    assert {rows.device.type for c in captured.values() for rows in (c.keys, c.gradients)} == {"meta"}


def test_a_trained_editor_forgets_its_device(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    layers = ffn_layers(model)
    editor = HyperNetworkEditor.create(layers, HyperNetworkSettings(rank=4, device="cpu"), seed=0)
    trained_for = TrainedFor("tiny", "0", "question_answering", "MALMEN", n_edits=1, seed=0, dtype="float32")
    write_editor_file(tmp_path / "e", editor, trained_for)
    assert read_editor_file(tmp_path / "e", layers).settings.device is None
    assert read_editor_file(tmp_path / "e", layers, "cpu").settings.device == "cpu"


def saved(folder: Path) -> Path:
    tiny_model("gpt2", torch.float32).module.save_pretrained(folder)
    tiny_tokenizer("gpt2").save_pretrained(folder)
    return folder


def test_a_model_is_loaded_by_its_device_map(tmp_path: Path) -> None:
    spec = ModelSpec("it", "It", "zsre", TASK_OF["gpt2"], "float32", saved(tmp_path), FFN["gpt2"], None, {"": "cpu"})
    model, plain = spec.load(Machine()), load_model(tmp_path, TASK_OF["gpt2"])
    (batch,) = model.batches(encoded_group(model, 4).edit, 4)
    assert torch.equal(model.answer_logits(batch), plain.answer_logits(batch))


def test_without_accelerate_a_device_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("malmen.models.load.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^A device_map needs accelerate, .* pip install -e '\.\[large\]'\.$"):
        load_model(saved(tmp_path), TASK_OF["gpt2"], device_map="auto")
