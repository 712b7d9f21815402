"""Ordinary text, whose perplexity shows whether a model still reads as it did, far from any edited fact."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from malmen.errors import UserError

BUILT_IN = Path(__file__).with_name("ordinary_text.txt")
"""Plain English prose, written for this package."""


@dataclass(frozen=True)
class OrdinaryText:
    """A text on which perplexity is measured.

    Attributes:
        text: the text itself.
        sha256: its digest.
        file: its file; None for the built-in text.
    """

    text: str
    sha256: str
    file: str | None = None

    @classmethod
    def read(cls, path: Path | None = None) -> "OrdinaryText":
        """Read a text file, by default the built-in one.

        Raises:
            UserError: if there is no such file, or it is no text in UTF-8, or has fewer than two words.
        """
        file = path or BUILT_IN
        try:
            content = file.read_bytes()
            text = content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The text {file} cannot be read as UTF-8 ({error}); give a file of plain text.") from None
        if len(text.split()) < 2:
            raise UserError(f"The text {file} has fewer than two words; give a file of ordinary text.")
        return cls(text, hashlib.sha256(content).hexdigest(), str(path) if path else None)
