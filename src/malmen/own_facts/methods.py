"""Settings of the editors that need no training: fine-tuning and MEMIT.

This module does not import torch, so that ``malmen edit --help`` is quick.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from malmen.config.memit import MemitSettings
from malmen.errors import UserError


@dataclass(frozen=True)
class FineTuning:
    """Fine-tune some layers on the facts: the paper's FT (appendix A.5), but until the model has learned them.

    Attributes:
        layers: Regular expression for the full names of the layers to tune, or several. Default: the second layer of
            every block's feed-forward network.
        last_blocks: Number of layers to tune for each expression, counted from the last match.
        epochs: Passes over the facts, at most: tuning ends once the model has learned them (the paper's FT: always 5).
        learning_rate: Learning rate of AdamW (the paper's FT: 5e-4). Default: by the model's size.
        seed: Seed of the order of the facts.

    Raises:
        UserError: if one of the layers is not a regular expression, or a number is out of its range.
    """

    layers: Sequence[str] = ()
    last_blocks: int = 3
    epochs: int = 30
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the regular expressions and the numbers."""
        check_numbers(last_blocks=self.last_blocks, epochs=self.epochs)
        rate = self.learning_rate
        if rate is not None and (not isinstance(rate, int | float) or not 0 < rate < math.inf):
            raise UserError(f"learning_rate is {rate!r} but must be a number greater than 0.")
        check_patterns(self.layers)


@dataclass(frozen=True)
class Memit:
    """Edit with MEMIT (Meng et al., 2023).

    Attributes:
        covariance: The model's key_covariance.safetensors, collected before. MEMIT edits the layers in this file.
            Default: it is collected from text on first use, and kept in the folder of caches.
        settings: MEMIT's settings, as under `memit` in a configuration; the command line reads them from a YAML or
            JSON file. Default: the settings for GPT-J.
        seed: Seed of the texts that MEMIT samples and puts before the prompts.
        text: File of ordinary text, one text a line, to collect the covariance from. Default: English Wikipedia, from
            the Hugging Face hub.
        text_tokens: Largest number of tokens of it that are read. Default: 30 for each number in a key, but at least
            100,000.
        layers: Regular expression for the full names of the layers to edit, or several. Default: the second layers of
            the feed-forward networks as deep as blocks 3 to 8 of GPT-J's 28.

    Raises:
        UserError: if one of the layers is not a regular expression, text_tokens is no number of tokens, or both a
            covariance and what it is to be collected from are given.
    """

    covariance: Path | None = None
    settings: MemitSettings = field(default_factory=MemitSettings)
    seed: int = 0
    text: Path | None = None
    text_tokens: int | None = None
    layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what is given."""
        check_patterns(self.layers)
        check_numbers(text_tokens=self.text_tokens)
        for name in ("text", "text_tokens", "layers"):
            if self.covariance is not None and getattr(self, name):
                raise UserError(
                    f"The covariance {self.covariance} is collected and has its layers; leave it out, or leave out "
                    f"{name}."
                )


def check_numbers(**numbers: object) -> None:
    """Raise :class:`UserError` unless all that are given are whole numbers of at least 1, or "auto"."""
    for name, value in numbers.items():
        if value not in (None, "auto") and (not isinstance(value, int) or value < 1):
            raise UserError(f"{name} is {value!r} but must be a whole number of at least 1.")


def check_patterns(layers: Sequence[str]) -> None:
    """Raise :class:`UserError` unless all are regular expressions."""
    for pattern in layers:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"The layers {pattern!r} are not a regular expression ({error}); correct it.") from None
