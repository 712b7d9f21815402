"""Calling DVC, which keeps data sets and checkpoints, as a command: its Python interface is not public."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import psutil

from malmen.errors import UserError
from malmen.runtime.text import first_few

BLOCKED = "is busy, it is being blocked by"
"""DVC's words for a file that another process uses."""
ADVICE = r"Is your cache up to date\?|Having any troubles\?|You can remove it from Git|<https://error"
"""How the lines begin that DVC adds to its errors."""
Holder = tuple[int, str]
"""Process id and command of a process that holds a lock."""


def dvc(root: Path, *arguments: str) -> str:
    """Run a DVC command in the checkout ``root`` and return what it printed.

    Raises:
        UserError: if it fails; quotes DVC.
    """
    lock = root / ".dvc" / "tmp" / "rwlock"
    dead = dead_holders(lock)
    done = call(root, arguments)
    # A killed DVC left the file half-written: this DVC held the lock while it read it, so nobody is writing it.
    half_written = "Unable to read RWLock-file" in done.stderr
    # A killed DVC left the file whole: all its holders were dead before the call, and no new one has come.
    abandoned = BLOCKED in done.stderr and set() < holders(lock) <= dead
    if half_written or abandoned:
        lock.unlink(missing_ok=True)
        done = call(root, arguments)
    if done.returncode:
        command = next(argument for argument in arguments if not argument.startswith("-"))
        raise UserError(f"`dvc {command}` failed in {root}: {reason(done.stderr)}")
    return done.stdout


def holders(lock: Path) -> set[Holder]:
    """Return the processes that a lock file of DVC names; none if it cannot be read."""
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        infos = [*chain.from_iterable(content.get("read", {}).values()), *content.get("write", {}).values()]
        return {(int(info["pid"]), str(info["cmd"])) for info in infos}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def dead_holders(lock: Path) -> set[Holder]:
    """Return the holders of a lock file that are dead, although their process ids may be in use.

    DVC itself takes any process id in use for a living holder, even that of a zombie or of a newer process.
    """
    found = holders(lock)
    # The time is read after the content, so whoever wrote the content was alive at that time.
    written = lock.stat().st_mtime if lock.exists() else 0.0
    return {holder for holder in found if not was_alive(holder[0], written)}


def was_alive(number: int, moment: float) -> bool:
    """Return whether a process is alive and already was at a moment (seconds since 1970)."""
    try:
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= moment
    except psutil.NoSuchProcess:
        return False


def call(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run DVC without a terminal: it asks nothing, and refuses to overwrite instead of asking."""
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
    """Return DVC's first errors in one line, without user names and passwords in URLs."""
    if re.search(f"Unable to acquire lock|{BLOCKED}", errors):
        return "another DVC process is using this checkout; try again when it has ended."
    said = re.sub(f"({ADVICE}).*", "", errors)
    _, *found = [shortened(part) for part in re.split(r"\bERROR: ", f" {said}")]
    return re.sub(r"//[^/@\s]*@", "//", first_few(found, separator="; ") or shortened(said))


def shortened(error: str) -> str:
    """Return an error of DVC in one line; of a list of files below its first line, only the first."""
    first, *files = [" ".join(line.split()) for line in error.splitlines() if line.strip()] or [""]
    return f"{first} {first_few(files, separator=', ' if first.endswith(':') else ' ')}".rstrip()


def pointer(path: Path) -> Path:
    """Return the pointer file, kept in git, to what DVC keeps at ``path``."""
    return path.with_name(f"{path.name}.dvc")


def pull(path: Path) -> bool:
    """Pull what DVC keeps at ``path`` from its cache or remote; return whether DVC keeps anything there.

    Waits for other DVC processes, since several jobs may pull at once.

    Raises:
        UserError: if neither the cache nor a remote has it.
    """
    if not pointer(path).is_file():
        return False
    path = path.absolute()
    root = next((folder for folder in path.parents if (folder / ".dvc").is_dir()), path.parent)
    dvc(root, "--wait-for-lock", "pull", "--force", str(pointer(path)))
    return True
