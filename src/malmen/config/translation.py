"""How texts are rephrased by translating them to another language and back (De Cao et al., 2021)."""

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT


@dataclass(frozen=True, config=STRICT)
class TranslationSettings:
    """How texts are rephrased by translating them to another language and back (De Cao et al., 2021)."""

    forward: str = "Helsinki-NLP/opus-mt-en-de"
    """The model that translates to the other language: a local directory, or an id of the Hugging Face hub."""
    forward_revision: str | None = None
    """Commit of its repository, one that holds safetensors (as that of refs/pr/4, 73d41ab); a directory needs none."""
    backward: str = "Helsinki-NLP/opus-mt-de-en"
    """The model that translates back: a local directory, or an id of the hub."""
    backward_revision: str | None = "6f6b23ef5ef8a586414ad9d2b7dda64ca5352935"
    """Commit of its repository, one that holds safetensors."""
    beams: PositiveInt = 5
    """Beams of each translation's search."""
    translations: PositiveInt = 5
    """Translations kept of each text, in each direction: a text has the square of this number of candidates."""
    max_tokens: PositiveInt = 128
    """Longest text and longest translation, in the translation models' tokens; longer ones are cut off."""
    batch_size: PositiveInt = 32
    """Texts translated at once; changes time and memory, and results by rounding only."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if more translations are kept than the search has beams."""
        if self.translations > self.beams:
            raise ValueError(f"translations is {self.translations} but must be at most beams ({self.beams})")
