"""Fixtures: the tiny models of :mod:`tiny_models`, and one thread, as sums depend on how they are split."""

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model

from malmen.models.language_model import LanguageModel


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def gpt2() -> LanguageModel:
    """A GPT-2 that answers questions, in float64."""
    return tiny_model("gpt2")


@pytest.fixture
def bert() -> LanguageModel:
    """A BERT that checks facts, in float64."""
    return tiny_model("bert")


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Each architecture, in float64."""
    return tiny_model(request.param)
