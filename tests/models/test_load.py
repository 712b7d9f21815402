"""Loading models from ordinary Hugging Face directories, and refusing what is none."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, edit_tuples, save_model, tiny_model, tiny_tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)

from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture, Dtype, TaskName
from malmen.errors import InterruptedJobError, UserError
from malmen.models import causality
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model
from malmen.runtime.signals import signals_as_errors


def saved(folder: Path, module: PreTrainedModel, architecture: Architecture) -> Path:
    module.save_pretrained(folder)
    tiny_tokenizer(architecture).save_pretrained(folder)
    return folder


def saved_gpt2(folder: Path) -> Path:
    return saved(folder, tiny_model("gpt2", torch.float32).module, "gpt2")


def logits(model: LanguageModel, architecture: Architecture) -> torch.Tensor:
    (batch,) = model.batches(model.encode([item.edit for item in edit_tuples(architecture, 5)]), 5)
    return model.answer_logits(batch)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_answers_as_before(tmp_path: Path, architecture: Architecture) -> None:
    model = tiny_model(architecture, torch.float32)
    loaded = load_model(saved(tmp_path / "m", model.module, architecture), TASK_OF[architecture])
    assert_same_model(loaded, model, architecture)
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.module.parameters())


def test_a_t5_with_a_head_of_its_own_keeps_it(tmp_path: Path) -> None:
    model = tiny_model("t5", torch.float32)
    module: Any = model.module
    head = torch.randn(module.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    module.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    folder = saved(tmp_path / "m", model.module, "t5")
    # As published: version 1.1 says only that the head is not the embedding.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key != "scale_decoder_outputs"}
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), encoding="utf-8")
    model.module.config.scale_decoder_outputs = False
    assert torch.equal(logits(load_model(folder, "sequence_to_sequence"), "t5"), logits(model, "t5"))


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_have_the_precision_asked_for(tmp_path: Path, architecture: Architecture, dtype: Dtype) -> None:
    folder = saved(tmp_path / "m", tiny_model(architecture, torch.float32).module, architecture)
    module = load_model(folder, TASK_OF[architecture], dtype).module
    assert {parameter.dtype for parameter in module.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM, BertForSequenceClassification])
def test_any_bert_becomes_a_fact_checker_with_a_new_head(
    tmp_path: Path, kind: type[PreTrainedModel], labels: int
) -> None:
    config = tiny_model("bert").module.config.to_dict() | {"num_labels": labels}
    original: Any = kind(BertConfig(**config))
    folder = saved(tmp_path / "bert", original, "bert")
    first = load_model(folder, "fact_checking", new_head=True)
    torch.rand(1)  # What was drawn before must not matter.
    again = load_model(folder, "fact_checking", new_head=True)
    encoder = first.module.base_model.state_dict()
    expected = original.base_model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.items())
    found = logits(first, "bert")
    assert found.shape == (5, 1) and found.any()
    assert torch.equal(found, logits(again, "bert"))
    if kind is BertForSequenceClassification and labels == 1:
        foreign = original.classifier(original.base_model(torch.tensor([[2, 3]])).last_hidden_state[:, 0])
        assert not torch.allclose(first.module(input_ids=torch.tensor([[2, 3]])), foreign)


def test_a_new_head_is_trained_from_the_same_start_and_then_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", BertModel(BertConfig(**tiny_model("bert").module.config.to_dict())), "bert")
    assert "base_finetuning" in refused(folder, "fact_checking")
    model = load_model(folder, "fact_checking", new_head=True)
    again = load_model(saved(tmp_path / "checker", model.module, "bert"), "fact_checking")
    assert_same_model(again, model, "bert")


def assert_same_model(loaded: LanguageModel, saved: LanguageModel, architecture: Architecture) -> None:
    """Assert that weights and logits are equal bit for bit."""
    weights, expected = loaded.module.state_dict(), saved.module.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert torch.equal(logits(loaded, architecture), logits(saved, architecture))


def refused(folder: Path, task: TaskName = "question_answering") -> str:
    """Return why a directory is refused: one sentence that names it."""
    with pytest.raises(UserError) as caught:
        load_model(folder, task)
    message = str(caught.value)
    assert str(folder) in message and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("config.json", "it has no config.json"),
        ("model.safetensors", "has no safetensors; take the commit of a revision that has them"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_missing_file_is_refused(tmp_path: Path, file: str, part: str) -> None:
    folder = saved_gpt2(tmp_path / "m")
    (folder / file).unlink()
    assert part in refused(folder)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "it has no config.json" in refused(tmp_path / "nothing")


def test_weights_of_which_a_part_is_missing_are_refused(tmp_path: Path) -> None:
    folder = saved_gpt2(tmp_path / "m")
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "model.safetensors").rename(folder / parts[0])
    index = {"weight_map": {"a": parts[0], "b": parts[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert parts[1] in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    assert "index.json" in refused(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_half_a_file_is_refused(tmp_path: Path, file: str) -> None:
    folder = saved_gpt2(tmp_path / "m")
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    assert re.search("(fetch or train|download) it again", refused(folder))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = saved_gpt2(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("gpt2", torch.float32).module.state_dict(), folder / "pytorch_model.bin")
    assert "has no safetensors, only pytorch_model.bin, which could run code" in refused(folder)


def test_weights_of_other_sizes_than_the_configuration_says_are_refused(tmp_path: Path) -> None:
    folder = saved_gpt2(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"n_embd": 32}), encoding="utf-8")
    assert "fetch or train it again" in refused(folder)


def test_an_architecture_that_does_not_do_the_task_is_refused(tmp_path: Path) -> None:
    folder = saved_gpt2(tmp_path / "gpt2")
    assert "holds a 'gpt2' model; fact checking needs 'bert'" in refused(folder, "fact_checking")
    assert "'gpt2' model; it answers by the task 'question_answering'" in refused(folder, "sequence_to_sequence")
    folder = saved(tmp_path / "t5", tiny_model("t5", torch.float32).module, "t5")
    assert "'t5' model; it answers by the task 'sequence_to_sequence'" in refused(folder)


def test_a_signal_while_a_model_is_tried_is_not_taken_for_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causality, "influence_on_beginning", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    save_model(tmp_path, tiny_model("gpt2", torch.float32))
    with signals_as_errors(), pytest.raises(InterruptedJobError, match="was ended by SIGTERM"):
        load_model(tmp_path, "question_answering", "float32", "cpu")
