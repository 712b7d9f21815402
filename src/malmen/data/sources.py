"""Fetching upstream files: a registry with checksums, a mirror that is tried first, and nothing half-written.

A *mirror* is a directory or an http(s) root laid out as ``<host>/<path>``: ``https://HOST/PATH`` lies at
``<mirror>/HOST/PATH``. The checksum is verified whatever the file came from. How a file is copied from a place, and
continued where that broke off, is :mod:`malmen.data.places`.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from malmen.data.places import Patience, UnavailableError, copy
from malmen.data.records import reading
from malmen.data.tuples import is_text
from malmen.errors import UserError
from malmen.files import git_blob, sha256
from malmen.interruption import alone
from malmen.provenance.dvc import pull
from malmen.reading import read_yaml

MIRROR_VARIABLE = "MALMEN_MIRROR"


@dataclass(frozen=True)
class Source:
    """One upstream file: where it is published and what it must be.

    Attributes:
        name: The name in the registry.
        urls: Places in the order in which they are tried, http or https.
        sha256: Hexadecimal SHA-256 of the file; None where only its ``git_blob`` is known.
        licence: Under which the file is published.
        bytes: Size of the file, where it is known.
        records: Number of records in the file, where it is known.
        git_blob: The id that git gives to the file, checked where no SHA-256 is known.
        citations: Keys of the works that describe the file, in ``attribution.yaml``.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    licence: str
    bytes: int | None = None
    records: int | None = None
    git_blob: str | None = None
    citations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless there are http(s) URLs and a checksum."""
        if not self.urls or not all(re.match(r"https?://[^/]+/.", url) for url in self.urls):
            raise ValueError(f"{self.name}: urls must be http or https and name a file, not {self.urls}")
        if self.sha256 is None and not re.fullmatch(r"[0-9a-f]{40}", self.git_blob or ""):
            raise ValueError(f"{self.name}: {self.git_blob!r} is not the id of a git blob, and there is no SHA-256")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.name}: {self.sha256!r} is not a SHA-256")

    @property
    def checksum(self) -> str | None:
        """What the file is checked by: its SHA-256, or else its git blob."""
        return self.sha256 or self.git_blob

    def matches(self, path: Path) -> bool:
        """Say whether a file is this one, by its checksum."""
        return (sha256(path) if self.sha256 else git_blob(path)) == self.checksum


@cache
def registry() -> Mapping[str, Source]:
    """Read ``sources.yaml``, which is part of the package."""
    return read_sources(Path(__file__).with_name("sources.yaml"))


def read_sources(path: Path) -> dict[str, Source]:
    """Read a registry of upstream files.

    Raises:
        UserError: if it cannot be read; naming the entry that is malformed.
    """
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path} must map names of upstream files to what is known of them; correct it.")
    found = {}
    for name, entry in entries.items():
        with reading(path, f"entry {name}", remedy="correct the entry"):
            found[name] = source_from_yaml(name, dict(entry))
    return found


def source_from_yaml(name: str, entry: dict[str, Any]) -> Source:
    """Return an entry of the registry; raise Key-, Type- or ``ValueError`` if it is malformed."""
    lists = {key: entry.pop(key) for key in ("urls", "citations")}
    if not all(isinstance(value, list) and all(map(is_text, value)) for value in lists.values()):
        raise TypeError("urls and citations must be lists of texts")
    numbers = [entry.get(key) for key in ("bytes", "records")]
    if not all(value is None or isinstance(value, int) for value in numbers) or not is_text(entry["licence"]):
        raise TypeError("bytes and records must be numbers, and licence a text")
    return Source(name, tuple(lists["urls"]), entry.pop("sha256", None), citations=tuple(lists["citations"]), **entry)


def mirror_location(configured: str | None) -> str | None:
    """Return the configured mirror, or else that of the environment variable ``MALMEN_MIRROR``, or else none."""
    return configured or os.environ.get(MIRROR_VARIABLE) or None


def fetch(name: str, destination: Path, mirror: str | None) -> Path:
    """Fetch the upstream file ``name`` of the registry to ``destination`` and return that.

    If no place yields it, it is taken from DVC, where somebody has published it with its data set.

    Raises:
        UserError: if there is no such name, or as :func:`download`.
    """
    sources = registry()
    if name not in sources:
        raise UserError(f"There is no upstream file {name!r}; choose one of {', '.join(sources)}.")
    try:
        return download(sources[name], destination, mirror)
    except UserError as error:
        if not published(sources[name], destination):
            raise
        logging.getLogger(__name__).warning("taken from DVC instead: %s", error)
        return destination


def published(source: Source, destination: Path) -> bool:
    """Bring ``source`` from DVC, if it was published there and is the right file, and say whether it was."""
    try:
        if not pull(destination):
            return False
    except UserError as error:
        logging.getLogger(__name__).warning("%s", error)
        return False
    if not source.matches(destination):
        destination.unlink()
        return False
    return True


def download(source: Source, destination: Path, mirror: str | None, patience: Patience | None = None) -> Path:
    """Bring ``source`` to ``destination``, unless it is there and good: from the mirror, or else from each URL in turn.

    What has come of it lies beside ``destination``, hidden, until it is whole and checked, and is continued next time.
    Of several processes that fetch it to one place, one does, and the others wait.

    Args:
        source: The file.
        destination: Where it goes; its folder is made. It is written whole or not at all.
        mirror: A directory or an http(s) root laid out as ``<host>/<path>``, or none.
        patience: How often a place is asked.

    Raises:
        UserError: if the mirror is neither a directory nor http(s), the file cannot be written, or no place yields a
            file with the right checksum; it then says what each place answered.
    """
    places = [*mirror_places(source, mirror), *source.urls]
    # It stays: were it removed, one process could wait for the old file while another locks a new one.
    lock = destination.with_name(f".{destination.name}.lock")
    try:
        if is_there(source, destination):
            return destination
        lock.parent.mkdir(parents=True, exist_ok=True)
        with alone(lock, f"Another process is fetching {source.name}"):
            if not is_there(source, destination):
                bring_from(places, source, destination, patience or Patience())
    except OSError as error:
        raise UserError(f"{source.name} could not be fetched ({error}); check space and permissions.") from None
    return destination


def is_there(source: Source, destination: Path) -> bool:
    """Return whether the file has been brought, and is good."""
    return destination.is_file() and source.matches(destination)


def bring_from(places: Sequence[str], source: Source, destination: Path, patience: Patience) -> None:
    """Copy a file from the first place that yields it.

    Raises:
        UserError: if none does; it says what each answered.
        OSError: if the file cannot be written.
    """
    answers = []
    for place in places:
        shown = re.sub(r"//[^/@]*@", "//", place)  # without a user name and password
        try:
            bring(place, source, destination, patience)
        except UnavailableError as error:
            answers.append(f"{shown}: {error}")
            logging.getLogger(__name__).warning("%s: %s", shown, error)
        else:
            return
    raise UserError(
        f"{source.name} could not be fetched ({'; '.join(answers)}); check the network, or set data.mirror in the "
        f"configuration or the environment variable {MIRROR_VARIABLE} to a directory or an http(s) root that holds "
        f"{mirror_path(source.urls[0])} with the right checksum."
    )


def bring(place: str, source: Source, destination: Path, patience: Patience) -> None:
    """Copy a file from one place and check it; what continued an older part and is wrong is copied anew, once."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.part")
    continued = partial.is_file()
    copy(place, partial, patience)
    if source.matches(partial):
        partial.replace(destination)
        return
    size = partial.stat().st_size
    partial.unlink()
    if not continued:
        published = f" of {source.bytes:,}" if source.bytes is not None else ""
        raise UnavailableError(f"wrong checksum ({size:,}{published} bytes)")
    bring(place, source, destination, patience)


def mirror_path(url: str) -> str:
    """Return ``<host>/<path>`` of a URL, the place of its file in a mirror; a file's name in a folder is behind it."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}" + (f"/{parts.fragment}" if parts.fragment else "")


def mirror_places(source: Source, mirror: str | None) -> list[str]:
    """Return where a mirror would hold ``source``; raise :class:`UserError` for a scheme other than http and https."""
    if mirror is None:
        return []
    if "://" in mirror and not mirror.lower().startswith(("http://", "https://")):
        raise UserError(f"The mirror {mirror!r} cannot be used; give a directory, or a root with http:// or https://.")
    root = mirror.rstrip("/") if "://" in mirror else str(Path(mirror).expanduser())
    return [f"{root}/{mirror_path(url)}" for url in source.urls]
