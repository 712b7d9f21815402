"""Copying one file from one place: the disk, a web server, a shared Google Drive folder. What broke off is continued.

A place is a path or an http(s) URL; that of a file in a Drive folder is the folder's URL, ``#`` and the file's name.
Another kind of place is another line of :data:`KINDS`.
"""

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import requests

BLOCK = 2**14  # bytes that are written at once, and lost at most when a transfer breaks off
TIMEOUT = 30  # seconds without a byte before a connection counts as lost
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another try
BEYOND_THE_END = 416  # HTTP status: of the file nothing is left to send
DRIVE_FOLDER = "https://drive.google.com/drive/folders/"


class UnavailableError(Exception):
    """One place did not yield the file; the message says what it answered."""


@dataclass(frozen=True)
class Patience:
    """How often a place is asked whose failure may pass (lost connection, overloaded server).

    Attributes:
        tries: so often in all.
        pause: seconds before the second try; doubled before each further one.
    """

    tries: int = 3
    pause: float = 1.0


def copy(place: str, target: Path, patience: Patience) -> None:
    """Copy the file at ``place`` to ``target``; a part of it that is there already may be continued.

    Raises:
        UnavailableError: if the place does not yield the file; what came of it stays.
        OSError: if the file cannot be written.
    """
    next(take for begins, take in KINDS.items() if re.match(begins, place))(place, target, patience)


def from_disk(place: str, target: Path, _: Patience) -> None:
    """Copy a file of this machine."""
    if not Path(place).is_file():
        raise UnavailableError("no such file")
    shutil.copyfile(place, target)


def from_web(place: str, target: Path, patience: Patience) -> None:
    """Fetch an http(s) URL, again where that may help."""
    for attempt in range(patience.tries):
        try:
            get(place, target)
            return
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            if attempt == patience.tries - 1 or (status is not None and status not in TRANSIENT):
                raise UnavailableError(describe(error, status)) from None
        time.sleep(patience.pause * 2**attempt)


def get(url: str, target: Path) -> None:
    """Fetch what ``target`` lacks of a URL, or all of it from a server that sends no parts."""
    done = target.stat().st_size if target.is_file() else 0
    # Compressed, a part would begin elsewhere than the bytes that are there end.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if done and answer.status_code == BEYOND_THE_END:
            return
        answer.raise_for_status()
        with target.open("ab" if answer.status_code == requests.codes.partial_content else "wb") as stream:
            for block in answer.iter_content(BLOCK):
                stream.write(block)


def describe(error: requests.RequestException, status: int | None) -> str:
    """Say in a few words what a place answered."""
    if status is not None:
        return f"HTTP status {status}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"{type(error).__name__}"


def from_drive(place: str, target: Path, patience: Patience) -> None:
    """Fetch a file by its name from a shared Google Drive folder or a folder within it."""
    try:
        import gdown  # noqa: PLC0415 (needed here alone, and slow to import)
    except ImportError:
        raise UnavailableError("the package 'gdown' is not installed") from None
    parts = urlsplit(place)
    arriving = target.with_name(f"{target.name}.drive")  # gdown keeps a part of its own beside it
    try:
        listed: list[Any] = gdown.download_folder(url=place, skip_download=True, quiet=True, timeout=TIMEOUT)
        found = [file.id for file in listed if PurePosixPath(file.path).name == parts.fragment]
        if len(found) != 1:
            raise UnavailableError(f"the folder holds {len(found)} files of this name")
        again = patience.tries - 1
        gdown.download(id=found[0], output=str(arriving), quiet=True, resume=True, timeout=TIMEOUT, retries=again)
    except (gdown.exceptions.DownloadError, requests.RequestException) as error:
        raise UnavailableError(f"Google Drive does not give it ({type(error).__name__})") from None
    arriving.replace(target)


KINDS: dict[str, Callable[[str, Path, Patience], None]] = {
    re.escape(DRIVE_FOLDER): from_drive,
    "https?://": from_web,
    "": from_disk,
}
"""How a file is taken from a place, by a regular expression for how the place begins; the first that fits counts."""
