"""The layer names that a configuration is checked against are those of real models."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, SHAPES, Architecture, tiny_model
from transformers import PreTrainedModel

from malmen.models.architectures import layer_names, layer_names_of
from malmen.models.language_model import linear_layers


def names_inside_blocks(module: PreTrainedModel) -> list[str]:
    return [name for name in linear_layers(module) if any(part.isdigit() for part in name.split("."))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_are_those_of_the_model(architecture: Architecture, tmp_path: Path) -> None:
    module = tiny_model(architecture).module
    expected = names_inside_blocks(module)
    assert len(expected) == 3 * {"bert": 6, "gpt2": 4}[architecture]
    assert layer_names(architecture, 3) == expected
    assert layer_names_of(SHAPES[architecture]) == expected
    module.save_pretrained(tmp_path)
    assert layer_names_of(tmp_path) == expected


def test_of_another_architecture_or_no_model_nothing_is_known(tmp_path: Path) -> None:
    assert layer_names("t5", 3) == []
    assert layer_names_of(tmp_path / "nothing") == []
    configs: list[Any] = [{"model_type": "gpt2"}, [], {"n_layer": 2}, {"model_type": "t5", "num_hidden_layers": 2}]
    for config in configs:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert layer_names_of(tmp_path) == []
