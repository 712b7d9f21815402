"""Fetching upstream files: a mirror is tried first, every checksum is verified, and nothing is half-written.

A *mirror* is a directory or an http(s) root laid out as ``<host>/<path>``: ``https://HOST/PATH`` lies at
``<mirror>/HOST/PATH``. The checksum is verified whatever the file came from. How a file is copied from a place, and
continued where that broke off, is :mod:`malmen.data.places`.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from malmen.config.upstream_files import UpstreamFile, upstream_files
from malmen.data.places import Patience, UnavailableError, copy
from malmen.errors import UserError
from malmen.runtime.dvc import pull
from malmen.runtime.signals import exclusive_lock

MIRROR_VARIABLE = "MALMEN_MIRROR"


def mirror_location(configured: str | None) -> str | None:
    """Return the configured mirror, or else that of the environment variable ``MALMEN_MIRROR``, or else none."""
    return configured or os.environ.get(MIRROR_VARIABLE) or None


def fetch(name: str, destination: Path, mirror: str | None) -> Path:
    """Fetch the upstream file ``name`` of the registry to ``destination`` and return that.

    If no place yields it, it is taken from DVC, where somebody has published it with its data set.

    Raises:
        UserError: if there is no such name, or as :func:`download`.
    """
    files = upstream_files()
    if name not in files:
        raise UserError(f"There is no upstream file {name!r}; choose one of {', '.join(files)}.")
    try:
        return download(files[name], destination, mirror)
    except UserError as error:
        if not published(files[name], destination):
            raise
        logging.getLogger(__name__).warning("taken from DVC instead: %s", error)
        return destination


def published(source: UpstreamFile, destination: Path) -> bool:
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


def download(source: UpstreamFile, destination: Path, mirror: str | None, patience: Patience | None = None) -> Path:
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
        with exclusive_lock(lock, f"Another process is fetching {source.name}"):
            if not is_there(source, destination):
                bring_from(places, source, destination, patience or Patience())
    except OSError as error:
        raise UserError(f"{source.name} could not be fetched ({error}); check space and permissions.") from None
    return destination


def is_there(source: UpstreamFile, destination: Path) -> bool:
    """Return whether the file has been brought, and is good."""
    return destination.is_file() and source.matches(destination)


def bring_from(places: Sequence[str], source: UpstreamFile, destination: Path, patience: Patience) -> None:
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


def bring(place: str, source: UpstreamFile, destination: Path, patience: Patience) -> None:
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


def mirror_places(source: UpstreamFile, mirror: str | None) -> list[str]:
    """Return where a mirror would hold ``source``; raise :class:`UserError` for a scheme other than http and https."""
    if mirror is None:
        return []
    if "://" in mirror and not mirror.lower().startswith(("http://", "https://")):
        raise UserError(f"The mirror {mirror!r} cannot be used; give a directory, or a root with http:// or https://.")
    root = mirror.rstrip("/") if "://" in mirror else str(Path(mirror).expanduser())
    return [f"{root}/{mirror_path(url)}" for url in source.urls]
