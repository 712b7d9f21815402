"""Reporting everything that is wrong with a file at once, however much it is."""

import tempfile
from collections.abc import Sequence

from malmen.errors import UserError
from malmen.runtime.text import counted

SHOWN = 10
"""How many problems a message shows; a file has all of them."""


def refuse_all(problems: Sequence[str], checked: str) -> None:
    """Raise one error for all problems that a check found, or do nothing if it found none.

    A single problem is the whole message. Of more, the message counts them and shows the first ten; if there are more
    than ten, all of them are written to a file in the temporary directory, which the message names.

    Args:
        problems: a sentence for each problem: where it is, what it is, and what to do about it.
        checked: what was checked, with its number, such as "743 records of facts.jsonl".

    Raises:
        UserError: if there are problems.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise UserError(problems[0])
    first = f"{counted(len(problems), 'problem')} in {checked}"
    if len(problems) <= SHOWN:
        raise UserError(f"{first}.", *problems)
    raise UserError(f"{first}; these are the first {SHOWN}.", *problems[:SHOWN], where_all_are(problems, checked))


def where_all_are(problems: Sequence[str], checked: str) -> str:
    """Write all problems to a new file in the temporary directory; return a sentence that says where they are."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="malmen-problems-", suffix=".txt", delete=False
        ) as file:
            file.write(f"{UserError(*problems)}\n")
    except OSError as error:
        return (
            f"A list of all problems in {checked} cannot be written ({error.strerror}); set TMPDIR to a folder for it."
        )
    return f"All problems in {checked} are listed in {file.name}."
