"""Size and length are read where a model's configuration keeps its language settings."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma3Config, Gemma3TextConfig, GPT2Config, PretrainedConfig, T5Config

from malmen.config.architectures import shape_of
from malmen.config.scratch import Shape
from malmen.models.text_config import text_config

TEXT: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 90, "intermediate_size": 40}


@pytest.mark.parametrize("config", [GPT2Config(n_layer=3), T5Config(num_layers=3)])
def test_most_configurations_are_flat(config: PretrainedConfig) -> None:
    assert text_config(config) is config
    assert text_config(config).num_hidden_layers == 3


def test_a_model_that_also_sees_nests_them(tmp_path: Path) -> None:
    config = Gemma3Config(text_config=Gemma3TextConfig(**TEXT, num_attention_heads=2, head_dim=8))
    found = text_config(config)
    assert (found.hidden_size, found.num_hidden_layers, found.vocab_size) == (24, 2, 90)
    config.save_pretrained(tmp_path)
    assert shape_of(tmp_path) == Shape(blocks=2, hidden_size=24, ffn_size=40, vocabulary=90)
