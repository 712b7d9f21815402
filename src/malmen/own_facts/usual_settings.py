"""Settings for training an editor of a model that nobody has tuned one for, by the model's size."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.models.language_model import LanguageModel

Kind = Literal["malmen", "mend"]
"""Which editor is trained."""

PAPER_RANK = 1920
STEPS = 45
"""Meta-steps at least, where one pass over the tuples has fewer: at m = 64 and 256, SmolLM2 (135M) has learned most."""
RATES = ((1024, 1e-4, 1e-4), (2048, 1e-5, 3e-5))
"""Up to a hidden size, the initial eta and the meta-learning rate; measured for the first, interpolated after it."""
PAPER_RATES = (1e-6, 1e-5)
"""The paper's for GPT-J (appendix A.6), for larger models."""
TUNING_RATES = ((1024, 1e-3), (2048, 5e-4))
"""Up to a hidden size, the learning rate of fine-tuning; the first is measured on SmolLM2 (135M)."""
LARGE_TUNING_RATE = 2e-4
"""That of larger models."""
TRIED = (0.1, 1.0, 10.0)
"""By what eta is multiplied in a scan."""


def usual_settings(
    model: LanguageModel,
    kind: Kind = "malmen",
    last_blocks: int | None = None,
    rank: int | None = None,
    learning_rate: float | None = None,
    meta_learning_rate: float | None = None,
    locality: float = 1.0,
    steps: int | None = None,
) -> HyperNetworkEditorSettings:
    """Return settings that suit a model's size, but for those that are given.

    MEND sums the shifts of all tokens in place of solving for them, so its eta is a tenth of MALMEN's.

    Args:
        model: the language model.
        kind: the editor.
        last_blocks: number of last blocks whose layers are edited.
        rank: of the hyper-network's linear maps.
        learning_rate: initial eta.
        meta_learning_rate: Adam's rate for all that is trained.
        locality: weight of the loss on unrelated prompts.
        steps: number of meta-steps.

    Raises:
        ValidationError: if one of them is out of its range.
    """
    width = width_of(model)
    eta, meta_rate = next((rates for size, *rates in RATES if width <= size), PAPER_RATES)
    usual_rank = min(PAPER_RANK, width if width < 128 else width // 128 * 128)
    network = HyperNetworkSettings(
        aggregation="sum" if kind == "mend" else "least_squares",
        rank=rank or usual_rank,
        learning_rate=learning_rate or (eta / 10 if kind == "mend" else eta),
    )
    training = TrainingSettings(
        meta_learning_rate=meta_learning_rate or meta_rate, locality_coefficient=locality, min_steps=STEPS
    )
    settings = HyperNetworkEditorSettings(label=kind.upper(), hypernetwork=network, training=training)
    settings = settings if last_blocks is None else replace(settings, last_blocks=last_blocks)
    return with_steps(settings, steps) if steps else settings


def usual_tuning_rate(model: LanguageModel) -> float:
    """Return a learning rate of fine-tuning that suits a model's size."""
    width = width_of(model)
    return next((rate for size, rate in TUNING_RATES if width <= size), LARGE_TUNING_RATE)


def width_of(model: LanguageModel) -> int:
    """Return the size of a model's hidden states."""
    embedding: Any = model.module.get_input_embeddings()
    return int(getattr(model.text_config, "hidden_size", None) or embedding.weight.shape[1])


def with_steps(settings: HyperNetworkEditorSettings, steps: int) -> HyperNetworkEditorSettings:
    """Return settings with exactly this number of meta-steps, on the unedited model."""
    return replace(settings, training=replace(settings.training, min_steps=steps, max_steps=steps, rollout=None))


def to_try(settings: HyperNetworkEditorSettings) -> Iterator[HyperNetworkEditorSettings]:
    """Yield the settings of a short scan: with a smaller eta, as they are, and with a larger eta."""
    for factor in TRIED:
        eta = settings.hypernetwork.learning_rate * factor
        yield replace(settings, hypernetwork=replace(settings.hypernetwork, learning_rate=eta))
