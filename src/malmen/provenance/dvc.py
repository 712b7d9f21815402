"""Calling DVC, which keeps data sets and checkpoints, as a command: its Python interface is no public one."""

import os
import re
import subprocess
import sys
from pathlib import Path

from malmen.errors import UserError


def dvc(root: Path, *arguments: str) -> str:
    """Run a DVC command in the checkout ``root`` and return what it printed.

    Raises:
        UserError: with what DVC says, if it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    # Without a terminal DVC asks no questions; what it would overwrite, it then refuses to.
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        verb = next(argument for argument in arguments if not argument.startswith("-"))
        raise UserError(f"`dvc {verb}` failed in {root}: {reason(done.stderr)}")
    return done.stdout


def reason(errors: str) -> str:
    """Return in one line what DVC printed as its error, without hints at its pages."""
    if "Unable to acquire lock" in errors or "is busy, it is being blocked by" in errors:
        return "another DVC process is at work in this checkout; try again when it has ended."
    _, found, said = errors.rpartition("ERROR: ")
    lines = [line.strip() for line in (said if found else errors).splitlines()]
    text = " ".join(line for line in lines if line)
    return re.sub(r"\S*://\S*@", "", text.partition(" - ")[0] if "unexpected error - " not in text else text)


def pointer(path: Path) -> Path:
    """Return the file by which git knows what DVC keeps at ``path``."""
    return path.with_name(f"{path.name}.dvc")


def pull(path: Path) -> bool:
    """Bring what DVC keeps at ``path`` from its cache or remote; say whether DVC keeps anything there.

    Waits for other DVC processes, as several jobs may want something at once.

    Raises:
        UserError: if neither the cache nor a remote has it.
    """
    if not pointer(path).is_file():
        return False
    dvc(path.parent, "--wait-for-lock", "pull", "--force", pointer(path).name)
    return True
