"""Calling DVC, which keeps data sets and checkpoints, as a command: its Python interface is not public."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import psutil

from malmen.errors import UserError
from malmen.runtime.text import first_few

BLOCKED = "is busy, it is being blocked by"
"""DVC's words for a file that another process uses."""
ADVICE = r"Is your cache up to date\?|Having any troubles\?|You can remove it from Git|<https://error"
"""How the lines begin that DVC adds to its errors."""
PORTS = {"http": 80, "https": 443, "ssh": 22}
"""The usual ports of servers, by the scheme of their URLs."""
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
    return without_secrets(first_few(found, separator="; ") or shortened(said))


def shortened(error: str) -> str:
    """Return an error of DVC in one line; of a list of files below its first line, only the first."""
    first, *files = [" ".join(line.split()) for line in error.splitlines() if line.strip()] or [""]
    return f"{first} {first_few(files, separator=', ' if first.endswith(':') else ' ')}".rstrip()


def pointer(path: Path) -> Path:
    """Return the pointer file, kept in git, to what DVC keeps at ``path``."""
    return path.with_name(f"{path.name}.dvc")


@dataclass(frozen=True)
class Remote:
    """Where DVC pushes to and pulls from.

    Attributes:
        name: as DVC's configuration calls it.
        url: a URL, or the path of a folder.
    """

    name: str
    url: str

    def __str__(self) -> str:
        """Return name and place, without user name and password."""
        return f"the DVC remote {self.name} ({without_secrets(self.url)})"

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None if it is somewhere else."""
        place = self.url.removeprefix("file://")
        return None if "://" in place else Path(place)

    def absence(self) -> str | None:
        """Say why nothing can be pulled from it, if it is not there at all; None if it is, or nobody can tell."""
        another = f"or name its new place with `dvc remote modify --local {self.name} url NEW`"
        if self.folder is not None:
            return None if self.folder.is_dir() else f"{self} is not there; mount or restore that folder, {another}."
        address = urlsplit(self.url)
        if address.scheme not in PORTS or getproxies():
            return None
        try:
            socket.create_connection((address.hostname or "", address.port or PORTS[address.scheme]), 10).close()
        except (OSError, ValueError) as error:
            return f"{self} does not answer ({type(error).__name__}); check the network and the address, {another}."
        return None


def default_remote(root: Path) -> Remote | None:
    """Return DVC's default remote; None if none is set."""
    settings = dict(line.split("=", 1) for line in dvc(root, "config", "--list").splitlines())
    name = settings.get("core.remote")
    return Remote(name, settings.get(f"remote.{name}.url", "")) if name else None


def push(root: Path, pointers: Sequence[Path]) -> Remote | None:
    """Push what pointers stand for to the default remote, and return that; None if none is set.

    Raises:
        UserError: if the remote is not there, or refuses.
    """
    remote = default_remote(root)
    if remote is None:
        return None
    if remote.folder is not None and not remote.folder.parent.is_dir():  # DVC would make all of the path.
        raise UserError(in_sentence(remote.absence() or ""))
    try:
        dvc(root, "push", *map(str, pointers))
    except UserError as error:
        reason = remote.absence() or f"{remote} did not take everything: {error}"
        raise UserError(in_sentence(reason)) from None
    return remote


def pull(root: Path, pointers: Sequence[Path], from_job: bool = False) -> None:
    """Pull what pointers stand for from the cache or the default remote.

    Args:
        root: the checkout.
        pointers: the pointers.
        from_job: whether to wait for other DVC processes, as jobs may pull at the same time, and to overwrite files.

    Raises:
        UserError: if neither has it; says whether the remote is there at all.
    """
    command = ["--wait-for-lock", "pull", "--force"] if from_job else ["pull"]
    try:
        dvc(root, *command, *map(str, pointers))
    except UserError as error:
        remote = default_remote(root)
        if remote is None:
            advice = "name one with `dvc remote add --default NAME URL`"
            reason = f"DVC's cache lacks something, and no remote is set; {advice}: {error}"
        else:
            kept = f"{remote} is there, but not everything came from it; push what it lacks where it was published"
            reason = remote.absence() or f"{kept}: {error}"
        raise UserError(in_sentence(reason)) from None


def pull_one(path: Path) -> bool:
    """Pull what DVC keeps at ``path``; return whether DVC keeps anything there.

    Raises:
        UserError: if neither the cache nor a remote has it.
    """
    if not pointer(path).is_file():
        return False
    path = path.absolute()
    root = next((folder for folder in path.parents if (folder / ".dvc").is_dir()), path.parent)
    pull(root, [pointer(path)], from_job=True)
    return True


def in_sentence(text: str) -> str:
    """Return a text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def without_secrets(text: str) -> str:
    """Return a text without the user names and passwords of URLs."""
    return re.sub(r"//[^/@\s]*@", "//", text)
