"""How texts are rephrased by translating them to another language and back (De Cao et al., 2021)."""

from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT


@plain_dataclass(frozen=True)
class TranslationModel:
    """A translation model of the Hugging Face hub.

    Attributes:
        hub_id: its id.
        revision: the commit of its repository.
        sha256: digest of its weights; None if it is not known.
    """

    hub_id: str
    revision: str
    sha256: str | None = None


# Commits of the hub's conversion service (SFconvertbot): before them, the repositories hold pickles alone.
PINNED = (
    TranslationModel(
        "Helsinki-NLP/opus-mt-en-de",
        "0012d6d6ff4b4dd06bee042d3294295f0e587abd",
        "3fb78700bce624990eff6468d0e14fbde18a6aedac35821fa8c0c4ead5fae014",
    ),
    TranslationModel(
        "Helsinki-NLP/opus-mt-de-en",
        "6f6b23ef5ef8a586414ad9d2b7dda64ca5352935",
        "5b1a66c79f6e871eb01b8818819e29bbdb6a25139af210b97b6efbf862493b4d",
    ),
)
"""The models that need no revision in a configuration."""


@dataclass(frozen=True, config=STRICT)
class TranslationSettings:
    """How texts are rephrased by translating them to another language and back (De Cao et al., 2021)."""

    forward: str = PINNED[0].hub_id
    """The model that translates to the other language: a local directory, or an id of the Hugging Face hub."""
    forward_revision: str | None = None
    """Commit of its repository, one that holds safetensors; null: the default model's, or of a directory none."""
    backward: str = PINNED[1].hub_id
    """The model that translates back: a local directory, or an id of the hub."""
    backward_revision: str | None = None
    """Commit of its repository, one that holds safetensors; null: the default model's, or of a directory none."""
    beams: PositiveInt = 5
    """Beams of each translation's search."""
    translations: PositiveInt = 5
    """Translations kept of each text, in each direction: a text has the square of this number of candidates."""
    max_tokens: PositiveInt = 128
    """Longest text and longest translation, in the translation models' tokens; longer ones are cut off."""
    batch_size: PositiveInt = 32
    """Texts translated at once; changes time and memory, and results by rounding only."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if more translations are kept than beams, or a model's revision is not known."""
        if self.translations > self.beams:
            raise ValueError(f"translations is {self.translations} but must be at most beams ({self.beams})")
        if not Path(self.forward).is_dir():
            self.source("forward")
        if not Path(self.backward).is_dir():
            self.source("backward")

    def source(self, direction: Literal["forward", "backward"]) -> TranslationModel:
        """Return where a model of the hub is fetched from.

        Raises:
            ValueError: if its revision is neither set nor pinned here.
        """
        hub_id = self.forward if direction == "forward" else self.backward
        revision = self.forward_revision if direction == "forward" else self.backward_revision
        for pin in PINNED:
            if hub_id == pin.hub_id and revision in (None, pin.revision):
                return pin
        if revision is None:
            raise ValueError(
                f"{direction}_revision is not set; set it to a commit of {hub_id} on the Hugging Face hub, or check "
                f"that the local directory {hub_id} exists"
            )
        return TranslationModel(hub_id, revision)
