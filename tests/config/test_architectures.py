"""The layer names that a configuration is checked against are those of real models."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, SHAPES, tiny_model
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from malmen.config.architectures import layer_names, layer_names_of
from malmen.config.base import Architecture
from malmen.models.linear_layers import linear_layers


def names_inside_blocks(module: PreTrainedModel) -> list[str]:
    return [name for name in linear_layers(module) if any(part.isdigit() for part in name.split("."))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_are_those_of_the_model(architecture: Architecture, tmp_path: Path) -> None:
    module = tiny_model(architecture).module
    expected = names_inside_blocks(module)
    assert len(expected) == 3 * {"bert": 6, "gpt2": 4, "gptj": 6, "t5": 18, "bart": 16}[architecture]
    assert layer_names(architecture, 3) == expected
    assert layer_names_of(SHAPES[architecture]) == expected
    module.save_pretrained(tmp_path)
    assert layer_names_of(tmp_path) == expected


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_a_t5_may_have_stacks_of_different_heights_and_no_gates(feed_forward: str, tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "num_layers": 2,
        "num_decoder_layers": 3,
        "d_model": 8,
        "d_kv": 4,
        "num_heads": 2,
        "d_ff": 8,
    }
    module = T5ForConditionalGeneration(T5Config(vocab_size=20, feed_forward_proj=feed_forward, **shape))
    module.save_pretrained(tmp_path)
    assert layer_names_of(tmp_path) == names_inside_blocks(module)


def test_of_another_architecture_or_no_model_nothing_is_known(tmp_path: Path) -> None:
    assert layer_names("xlnet", 3) == []
    assert layer_names_of(tmp_path / "nothing") == []
    configs: list[Any] = [{"model_type": "gpt2"}, [], {"n_layer": 2}, {"model_type": "xlnet", "n_layer": 2}]
    for config in configs:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert layer_names_of(tmp_path) == []
