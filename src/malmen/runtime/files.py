"""Writing files so that a reader never sees half of one, hashing them, and reading YAML."""

import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from malmen.errors import UserError

SETTLED_SECONDS = 2.0
"""How long a file must be unchanged before its digest is remembered."""
KNOWN_DIGESTS: dict[tuple[int, ...], str] = {}
"""SHA-256 of files that this process has read, by device, inode, size and times of change."""


def part_of(path: Path) -> Path:
    """Return this process's temporary name beside ``path``; remove the temporary files of killed processes."""
    host = socket.gethostname()
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(host)}.*.part"):
        number = left.name.split(".")[-2]
        if number == str(os.getpid()) or not (number.isdecimal() and is_alive(int(number))):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.part")


def is_alive(process: int) -> bool:
    """Return whether a process of this machine is alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        pass
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = part_of(path)
    try:
        yield temporary
        follow_umask(temporary)
        temporary.replace(path)
    except Exception as error:
        error.add_note(str(path))
        raise
    finally:
        temporary.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the permissions of the umask: safetensors writes files that nobody else may read."""
    mask = os.umask(0o077)
    os.umask(mask)
    mode = path.stat().st_mode
    if mode | 0o666 & ~mask != mode:
        path.chmod(mode | 0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, one number a line, so that versions can be compared."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def beside(stem: Path, suffix: str) -> Path:
    """Return ``stem`` with ``suffix`` appended, even if the name has a dot (``gpt-1.5b``)."""
    return stem.with_name(stem.name + suffix)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes.

    A process reads a file once, however often it asks. The digest is remembered while inode, size and times stay the
    same; among them is the time of the last change of the inode, which no program can set. A file that changed within
    the last :data:`SETTLED_SECONDS` is read again, since file systems count time coarsely.
    """
    state = path.stat()
    identity = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    if identity not in KNOWN_DIGESTS:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time() - state.st_ctime < SETTLED_SECONDS:
            return digest
        KNOWN_DIGESTS[identity] = digest
    return KNOWN_DIGESTS[identity]


def joint_digest(digests: Mapping[str, str]) -> str:
    """Return one digest for several files: a single file's own, otherwise that of all names and digests."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def git_blob(path: Path) -> str:
    """Return the hexadecimal id of a file's content in git (``git hash-object``)."""
    header = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``; put it in place of ``path`` on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = part_of(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            follow_umask(file)
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except Exception as error:
        error.add_note(str(path))
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_yaml(path: Path) -> Any:
    """Return the content of a file of YAML (or JSON); raise :class:`UserError` if it cannot be read."""
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} cannot be read as YAML or JSON ({type(error).__name__}{where}); correct it.") from None
