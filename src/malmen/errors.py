"""Errors that a user can act on."""

import errno
import re
from unicodedata import category


class UserError(Exception):
    """A problem whose message is one sentence: what went wrong, where, and what to do about it; or several, one a line.

    Command-line entry points and workflow scripts print the message alone, without a traceback, and exit with 1. What
    may stand in names and data but not in a line (line breaks, control characters, what turns its direction, half
    characters) is shown escaped; spaces of all kinds and the joiners of letters and emoji are kept.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__(*("".join(map(in_a_line, sentence)) for sentence in sentences))

    def __str__(self) -> str:
        """Return the sentences, one a line."""
        return "\n".join(self.args)


def in_a_line(character: str) -> str:
    """Return a character as a message of one line can show it."""
    kept = character.isprintable() or category(character) == "Zs" or character in "\u200c\u200d"
    return character if kept else ascii(character)[1:-1]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says, or its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class DoesNotFitError(UserError):
    """Memory does not hold even the smallest part of some work; says which and how much more is needed."""


class DivergedError(UserError, ArithmeticError):
    """A number that must be finite is not, or a system that must be solved is singular; says which and where."""


class InterruptedJobError(BaseException):
    """A signal asked the work to end; says so in one sentence, as :class:`UserError` does.

    It is no ``Exception``: code that guards against errors of any kind, of a model or a library, must not take it for
    one of them.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(map(in_a_line, sentence)))


TROUBLES = {
    errno.ENOSPC: "no space is left on the device; make space",
    errno.EDQUOT: "the disk quota is used up; make space",
    errno.EFBIG: "the file is larger than this process may write; raise the limit (ulimit -f)",
    errno.EACCES: "permission is denied; change the permissions",
    errno.EPERM: "the operation is not permitted; change the permissions",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; close some programs",
    errno.ENOMEM: "memory is used up; close some programs",
    errno.EIO: "the device failed; check it",
    errno.ENOENT: "there is no such file; check the path",
    errno.EISDIR: "it is a directory; check the path",
    errno.EEXIST: "a file is in the way; choose another path",
    errno.ENOTDIR: "a part of the path is not a directory; check the path",
}
"""What the operating system may refuse, and what to do about it."""


def trouble(error: BaseException) -> str | None:
    """Say in one sentence what the operating system refused, also by an error of a library written in Rust.

    Returns:
        The sentence; None if the error is something else.
    """
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else None
    if number not in TROUBLES:
        return None
    # ``malmen.runtime.files`` notes the file where the error itself names none.
    place = getattr(error, "filename", None) or next(iter(getattr(error, "__notes__", ())), "A file")
    return f"{place}: {TROUBLES[number]}, and run the same command again."
