"""Published numbers, which stand beside ours in tables: the paper's, and later papers'."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from malmen.errors import UserError

NUMBERS = {"n_edits": int, "mean": float, "std": float, "value": float, "total_seconds": float}
"""The columns with numbers, in all files."""


def read_published(path: Path | None, columns: Sequence[str], as_text: bool = False) -> pd.DataFrame:
    """Return columns of a file of published numbers; an empty table without a file.

    Args:
        path: the file; None for no numbers.
        columns: the names of the columns.
        as_text: whether numbers are kept as they are printed, and empty cells as empty texts.

    Raises:
        UserError: if the file cannot be read, or lacks a column.
    """
    if path is None:
        return pd.DataFrame({name: pd.Series(dtype=NUMBERS.get(name, object)) for name in columns})
    try:
        if as_text:
            return pd.read_csv(path, dtype=str, keep_default_na=False)[list(columns)]
        return pd.read_csv(path, dtype=NUMBERS)[list(columns)]
    except (OSError, KeyError, ValueError) as error:
        # The text of a KeyError is the repr of its message, whose line breaks are escaped.
        reason = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
        raise UserError(f"The published numbers {path} cannot be read ({reason}); restore them from git.") from None
