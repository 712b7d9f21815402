"""What jobs share: the model as files and settings."""

from pathlib import Path

import pytest
import torch
from tiny_models import save_model, tiny_model

from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.prompt_form import PLAIN, PromptForm


def spec(folder: Path, **more: str) -> ModelSpec:
    ffn = {"first": (), "second": ()}
    return ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", folder, ffn, **more)  # type: ignore[arg-type]


def test_a_model_is_asked_as_its_configuration_says(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    plain, templated = spec(folder), spec(folder, prompt="Q: {prompt} A: {answer}")
    assert plain.load(Machine()).form == PLAIN
    assert templated.load(Machine()).form == PromptForm("Q: ", " A:", " ")
    assert "prompt" not in plain.identity() and templated.identity()["prompt"] == templated.prompt
    with pytest.raises(UserError, match="no chat template"):
        spec(folder, prompt="chat").load(Machine())
    torch.use_deterministic_algorithms(False)


def test_a_saved_state_belongs_to_a_machine_with_any_number_of_ranks() -> None:
    assert Machine("cuda", 2, ranks=4).identity() == {"device": "cuda", "threads": 2} == Machine("cuda", 2).identity()
    assert Machine("cpu", 2).identity() != Machine("cpu", 1).identity()
