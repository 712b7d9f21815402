"""Calling DVC, which keeps data sets and checkpoints, as a command: its Python interface is no public one."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from malmen.errors import UserError


def dvc(root: Path, *arguments: str) -> str:
    """Run a DVC command in the checkout ``root`` and return what it printed.

    Raises:
        UserError: with what DVC says, if it fails.
    """
    done = call(root, arguments)
    if "Unable to read RWLock-file" in done.stderr:
        # Left half-written by a DVC that was killed: this one held the lock when it read it, so that nobody writes it.
        (root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
        done = call(root, arguments)
    if done.returncode:
        command = next(argument for argument in arguments if not argument.startswith("-"))
        raise UserError(f"`dvc {command}` failed in {root}: {reason(done.stderr)}")
    return done.stdout


def call(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run DVC without a terminal: it asks nothing, and refuses to overwrite what it would ask about."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def reason(errors: str) -> str:
    """Return in one line what DVC printed as its errors, without a user name and password in URLs."""
    if re.search("Unable to acquire lock|is busy, it is being blocked by", errors):
        return "another DVC process is at work in this checkout; try again when it has ended."
    said = re.sub(r"(Is your cache up to date\?|Having any troubles\?|You can remove it from Git).*", "", errors)
    _, *found = [" ".join(part.split()) for part in re.split(r"\bERROR: ", f" {said}")]
    return re.sub(r"//[^/@\s]*@", "//", "; ".join(found) or " ".join(said.split()))


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
    path = path.absolute()
    root = next((folder for folder in path.parents if (folder / ".dvc").is_dir()), path.parent)
    dvc(root, "--wait-for-lock", "pull", "--force", str(pointer(path)))
    return True
