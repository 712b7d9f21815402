"""What is said of a fetch from the hub before it starts and while it runs, and whether the disk holds it."""

import io
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.file_download import DryRunFileInfo
from huggingface_hub.utils.tqdm import tqdm

from malmen.errors import UserError
from malmen.runtime.progress import NETWORK, clock

logger = logging.getLogger("malmen")


def announce(name: str, files: Sequence[DryRunFileInfo]) -> None:
    """Say how much of some files is yet to be fetched, and how long that takes at 50 MB/s; nothing if all are there.

    Args:
        name: what is fetched.
        files: the files, with their sizes and whether the hub's cache has them.
    """
    if missing := missing_bytes(files):
        logger.info("%s: %s", name, announcement(missing))


def announcement(size: int) -> str:
    """Say how much is to be fetched, and how long that takes at 50 MB/s."""
    return f"{amount(size)} to fetch, {clock(max(1, size / NETWORK))} at {NETWORK / 1e6:g} MB/s"


def missing_bytes(files: Sequence[DryRunFileInfo]) -> int:
    """Return how many bytes of some files the hub's cache lacks."""
    return sum(file.file_size or 0 for file in files if file.will_download)


def amount(size: float) -> str:
    """Return a number of bytes in GB, or in MB below a tenth of one."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def check_space(name: str, needed: Mapping[Path, int], variable: str = "HF_HOME") -> None:
    """Refuse what a disk cannot hold.

    Args:
        name: what is fetched.
        needed: bytes by the folder they go to; folders on one disk share its space.
        variable: the environment variable that says where such a folder is.

    Raises:
        UserError: if a disk has too little space.
    """
    total: dict[int, int] = {}
    for folder, size in needed.items():
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disk = there.stat().st_dev
        total[disk] = total.get(disk, 0) + size
        if total[disk] > (free := shutil.disk_usage(there).free):
            raise UserError(
                f"{name} needs {amount(total[disk])} on the disk of {folder}, which has {amount(free)} left; make "
                f"space, or set {variable} to a folder on another disk."
            )


class ProgressLines(tqdm):
    """The hub library's bar of bytes, as lines of the log in place of a redrawn bar."""

    every_seconds = 10.0

    def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
        # Of bytes it shows two bars: those received, and those written, which alone count what was there already.
        self.speaks = kwargs.get("unit") == "B" and not name.endswith(".transfer")
        self.began = self.said = time.monotonic()
        super().__init__(  # type: ignore[no-untyped-call]
            *args, **{**kwargs, "name": name, "disable": False, "file": io.StringIO(), "leave": False}
        )

    def display(self, *_: object, **__: object) -> None:
        """Log a line if the last one is some seconds ago."""
        now = time.monotonic()
        if not self.speaks or now - self.said < self.every_seconds or not self.total or self.n >= self.total:
            return
        self.said = now
        rate = (self.n - self.initial) / (now - self.began)
        left = f", {clock((self.total - self.n) / rate)} left" if rate > 0 else ""
        logger.info("Fetching: %s of %s%s", amount(self.n), amount(self.total), left)
