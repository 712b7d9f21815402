"""Downloading upstream files: from a mirror first, with every checksum verified and no file half-written.

A *mirror* is a directory or an http(s) root laid out as ``<host>/<path>``: ``https://HOST/PATH`` lies at
``<mirror>/HOST/PATH``. A *place* is a path or an http(s) URL; for a file in a shared Google Drive folder it is the URL
of the folder, ``#`` and the name of the file. A transfer that broke off is continued.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import requests

from malmen.config.upstream_files import UpstreamFile, upstream_files
from malmen.errors import UserError
from malmen.runtime.dvc import pull_one
from malmen.runtime.signals import exclusive_lock

MIRROR_VARIABLE = "MALMEN_MIRROR"
DRIVE_FOLDER = "https://drive.google.com/drive/folders/"
BLOCK = 2**14  # bytes written at once, and the most that a broken transfer loses
TIMEOUT = 30  # seconds without a byte before a connection counts as lost
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another try
BEYOND_THE_END = 416  # HTTP status: nothing of the file is left to send

logger = logging.getLogger(__name__)


class UnavailableError(Exception):
    """One place did not yield the file; the message says what it answered."""


@dataclass(frozen=True)
class Retries:
    """How often a web server is asked when the failure may pass (lost connection, overloaded server).

    Attributes:
        tries: number of requests in all.
        pause: seconds before the second try; doubled before each further one.
    """

    tries: int = 3
    pause: float = 1.0


def mirror_location(configured: str | None) -> str | None:
    """Return the configured mirror, else that of the environment variable ``MALMEN_MIRROR``, else None."""
    return configured or os.environ.get(MIRROR_VARIABLE) or None


def fetch(name: str, destination: Path, mirror: str | None) -> Path:
    """Fetch the upstream file ``name`` of the registry to ``destination`` and return that.

    If no place yields it, it is pulled from DVC, in case somebody has published it together with its data set.

    Raises:
        UserError: if there is no such name, or as :func:`download`.
    """
    files = upstream_files()
    if name not in files:
        raise UserError(f"There is no upstream file {name!r}; choose one of {', '.join(files)}.")
    try:
        return download(files[name], destination, mirror)
    except UserError as error:
        if not pull_published(files[name], destination):
            raise
        logger.warning("taken from DVC instead: %s", error)
        return destination


def pull_published(source: UpstreamFile, destination: Path) -> bool:
    """Pull ``source`` from DVC; return whether it was published there with the right checksum."""
    try:
        if not pull_one(destination):
            return False
    except UserError as error:
        logger.warning("%s", error)
        return False
    if not source.matches(destination):
        destination.unlink()
        return False
    return True


def download(source: UpstreamFile, destination: Path, mirror: str | None, retries: Retries | None = None) -> Path:
    """Download ``source`` from the mirror, else from each URL in turn, unless ``destination`` already holds it.

    A partial download lies beside ``destination`` as a hidden file until it is complete and verified; the next call
    continues it. If several processes download to one destination, one does and the others wait.

    Args:
        source: The file.
        destination: Where it goes; its folder is made. It is written whole or not at all.
        mirror: A directory or an http(s) root laid out as ``<host>/<path>``, or None.
        retries: How often a web server is asked.

    Raises:
        UserError: if the mirror is neither a directory nor http(s), the file cannot be written, or no place yields a
            file with the right checksum; it then says what each place answered.
    """
    places = [*mirror_places(source, mirror), *source.urls]
    # The lock file stays: if it were removed, one process could wait for the old file while another locks a new one.
    lock = destination.with_name(f".{destination.name}.lock")
    try:
        if is_intact(source, destination):
            return destination
        lock.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(lock, f"Another process is downloading {source.name}"):
            if not is_intact(source, destination):
                download_from_first(places, source, destination, retries or Retries())
    except OSError as error:
        raise UserError(f"{source.name} cannot be downloaded ({error}); check space and permissions.") from None
    return destination


def is_intact(source: UpstreamFile, destination: Path) -> bool:
    """Return whether the file is there with the right checksum."""
    return destination.is_file() and source.matches(destination)


def download_from_first(places: Sequence[str], source: UpstreamFile, destination: Path, retries: Retries) -> None:
    """Copy a file from the first place that yields it.

    Raises:
        UserError: if none does; it says what each answered.
        OSError: if the file cannot be written.
    """
    answers = []
    for place in places:
        try:
            return download_verified(place, source, destination, retries)
        except UnavailableError as error:
            without_password = re.sub(r"//[^/@]*@", "//", place)
            answers.append(f"{without_password}: {error}")
            logger.warning("%s", answers[-1])
    raise UserError(
        f"{source.name} cannot be downloaded ({'; '.join(answers)}); check the network, or set data.mirror in the "
        f"configuration or the environment variable {MIRROR_VARIABLE} to a directory or an http(s) root that holds "
        f"{mirror_path(source.urls[0])} with the right checksum."
    )


def download_verified(place: str, source: UpstreamFile, destination: Path, retries: Retries) -> None:
    """Copy a file from one place and verify it; a wrong result that continued an older part is downloaded again."""
    partial = destination.with_name(f".{destination.name}.part")
    continued = partial.is_file()
    copy(place, partial, retries)
    if source.matches(partial):
        partial.replace(destination)
        return
    size = partial.stat().st_size
    partial.unlink()
    if not continued:
        expected = f" of {source.bytes:,}" if source.bytes is not None else ""
        raise UnavailableError(f"wrong checksum ({size:,}{expected} bytes)")
    download_verified(place, source, destination, retries)


def mirror_path(url: str) -> str:
    """Return ``<host>/<path>`` of a URL, where a mirror holds its file; the name of a file in a folder comes last."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}" + (f"/{parts.fragment}" if parts.fragment else "")


def mirror_places(source: UpstreamFile, mirror: str | None) -> list[str]:
    """Return where a mirror would hold ``source``; raise :class:`UserError` for a scheme other than http and https."""
    if mirror is None:
        return []
    if "://" in mirror and not mirror.lower().startswith(("http://", "https://")):
        raise UserError(f"The mirror {mirror!r} cannot be used; give a directory, or a root with http:// or https://.")
    root = mirror.rstrip("/") if "://" in mirror else str(Path(mirror).expanduser())
    return [f"{root}/{mirror_path(url)}" for url in source.urls]


def copy(place: str, target: Path, retries: Retries) -> None:
    """Copy the file at ``place`` to ``target``, which may already hold its beginning.

    Raises:
        UnavailableError: if the place does not yield the file; what has arrived stays.
        OSError: if the file cannot be written.
    """
    if place.startswith(DRIVE_FOLDER):
        copy_from_drive(place, target, retries)
    elif re.match("https?://", place):
        copy_from_web(place, target, retries)
    elif Path(place).is_file():
        shutil.copyfile(place, target)
    else:
        raise UnavailableError("no such file")


def copy_from_web(url: str, target: Path, retries: Retries) -> None:
    """Download an http(s) URL, again after a failure that may pass."""
    for attempt in range(retries.tries):
        try:
            append_missing(url, target)
            return
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            if attempt == retries.tries - 1 or (status is not None and status not in TRANSIENT):
                raise UnavailableError(describe(error, status)) from None
        time.sleep(retries.pause * 2**attempt)


def append_missing(url: str, target: Path) -> None:
    """Download what ``target`` lacks of a URL, or all of it from a server that sends no ranges."""
    done = target.stat().st_size if target.is_file() else 0
    # With compression, a range would begin elsewhere than the bytes that are there end.
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
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def copy_from_drive(place: str, target: Path, retries: Retries) -> None:
    """Download a file by its name from a shared Google Drive folder or a folder within it."""
    try:
        import gdown  # noqa: PLC0415 (only needed here, and slow to import)
    except ImportError:
        raise UnavailableError("the package 'gdown' is not installed") from None
    arriving = target.with_name(f"{target.name}.drive")  # gdown keeps a partial file of its own beside it
    try:
        listed: list[Any] = gdown.download_folder(url=place, skip_download=True, quiet=True, timeout=TIMEOUT)
        found = [file.id for file in listed if PurePosixPath(file.path).name == urlsplit(place).fragment]
        if len(found) != 1:
            raise UnavailableError(f"the folder holds {len(found)} files of this name")
        again = retries.tries - 1
        gdown.download(id=found[0], output=str(arriving), quiet=True, resume=True, timeout=TIMEOUT, retries=again)
    except (gdown.exceptions.DownloadError, requests.RequestException) as error:
        raise UnavailableError(f"Google Drive refuses the download ({type(error).__name__})") from None
    arriving.replace(target)
