"""The registry of upstream files: where each is published, and the checksum that it must have."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from malmen.errors import UserError
from malmen.runtime.files import git_blob, read_yaml, sha256

REGISTRY = Path(__file__).with_name("upstream_files.yaml")

Url = Annotated[str, Field(pattern=r"^https?://[^/]+/.")]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UpstreamFile:
    """One upstream file.

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
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    licence: Annotated[str, Field(min_length=1)]
    bytes: PositiveInt | None = None
    records: PositiveInt | None = None
    git_blob: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    citations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the file has a checksum."""
        if self.checksum is None:
            raise ValueError(f"{self.name} has neither a SHA-256 nor the id of a git blob")

    @property
    def checksum(self) -> str | None:
        """The checksum of the file: its SHA-256, or else its git blob."""
        return self.sha256 or self.git_blob

    def matches(self, path: Path) -> bool:
        """Return whether a file has the checksum."""
        return (sha256(path) if self.sha256 else git_blob(path)) == self.checksum


@cache
def upstream_files() -> Mapping[str, UpstreamFile]:
    """Return the registry, which is part of the package."""
    return read_upstream_files(REGISTRY)


def read_upstream_files(path: Path) -> dict[str, UpstreamFile]:
    """Read a registry of upstream files.

    Raises:
        UserError: if it cannot be read; it names the entry that is malformed.
    """
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path} must map names of upstream files to their URLs and checksums; correct it.")
    files, form = {}, TypeAdapter(UpstreamFile)
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}, entry {name}: expected keys and values; correct the entry.")
        try:
            files[str(name)] = form.validate_python({"sha256": None, **entry, "name": str(name)})
        except ValidationError as error:
            first = error.errors()[0]
            reason = re.sub("^Value error, ", "", first["msg"])
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{path}, entry {name}: {place + ': ' if place else ''}{reason}; correct the entry."
            ) from None
    return files
