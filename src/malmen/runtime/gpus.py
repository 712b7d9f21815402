"""GPUs that jobs on one machine take for themselves: Snakemake counts GPUs, but tells no job which ones are its own.

A claim is a locked file in a folder of this user. The kernel ends the lock with the process, ``kill -9`` included.
"""

import fcntl
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from malmen.errors import UserError
from malmen.runtime.signals import exclusive_lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process sees, by index or UUID."""


def visible_gpus() -> list[str]:
    """Return the GPUs that this process sees: what CUDA_VISIBLE_DEVICES names, or else all that nvidia-smi lists."""
    if (chosen := os.environ.get(VISIBLE)) is not None:
        return list(takewhile(lambda gpu: gpu not in {"", "-1"}, map(str.strip, chosen.split(","))))
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


@contextmanager
def claimed_gpus(n: int) -> Iterator[list[str]]:
    """Claim ``n`` different GPUs in the ``with`` block, and let this process and its children see no others.

    Those that the fewest jobs of this user hold are taken first, so that jobs share a GPU only where there are more
    jobs than GPUs. Enter it before torch looks for GPUs: CUDA reads CUDA_VISIBLE_DEVICES once. Where ``n`` is 0 or no
    GPU is visible, nothing happens. The GPUs that SLURM gives a job are all that the job sees, so it claims those.

    Yields:
        the GPUs, in the order in which they are visible.

    Raises:
        UserError: if fewer than ``n`` are visible.
    """
    visible = visible_gpus() if n else []
    if not visible:
        yield []
        return
    if n > len(visible):
        raise UserError(
            f"The job asks for {n} GPUs, but sees {len(visible)} ({', '.join(visible)}); lower the model's gpus, or "
            f"let {VISIBLE} name more."
        )
    with ExitStack() as held:
        chosen, before = claim(n, visible, held), os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(chosen)
        try:
            yield chosen
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def claim(n: int, visible: list[str], held: ExitStack) -> list[str]:
    """Claim the ``n`` least used GPUs until ``held`` is closed; return them as they are ordered in ``visible``."""
    folder = Path(tempfile.gettempdir(), f"malmen-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with exclusive_lock(folder / "choosing", "Another job is choosing its GPUs"):
        users = Counter(path.name.split(" ")[0] for path in folder.glob("* *") if is_held(path))
        least_used = sorted(visible, key=lambda gpu: users[name_in_files(gpu)])[:n]
        for gpu in least_used:
            file = tempfile.NamedTemporaryFile(prefix=f"{name_in_files(gpu)} ", dir=folder, delete=False)  # noqa: SIM115
            held.enter_context(file)
            # It is removed before it is closed, so while it is locked; a system may have cleared it away as too old.
            held.callback(Path(file.name).unlink, missing_ok=True)
            with suppress(OSError):  # as in is_held
                fcntl.flock(file, fcntl.LOCK_EX)
    return [gpu for gpu in visible if gpu in least_used]


def is_held(path: Path) -> bool:
    """Return whether a process holds a claim; remove the file of one that was killed."""
    try:
        with path.open("r+") as file:  # NFS locks only what may be written.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # Its process has just ended.
        return False
    except OSError:  # It is locked, or the file system has no locks: there a file is a claim until its job removes it.
        return True
    path.unlink(missing_ok=True)
    return False


def name_in_files(gpu: str) -> str:
    """Return a GPU's name as a part of a file's name: that of a part of a GPU (MIG) may have slashes."""
    return quote(gpu, safe="")
