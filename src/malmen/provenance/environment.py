"""The environment of a job: packages, machine, GPU, and the state of the checkout."""

import os
import platform
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from malmen.errors import UserError
from malmen.provenance.records import Environment, Gpu, Record, environment_path, read_environment

COMPUTING = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas"),
    *("matplotlib", "seaborn", "pillow", "fonttools", "contourpy", "kiwisolver"),
    *("altair", "vl-convert-python"),
)
"""Packages whose versions can change the bytes of results."""

CODE = ("Snakefile", "workflow", "src", "config", "data/published", "profiles")
"""Paths of code and configuration in the repository, which may also hold results."""


def environment(uses_gpu: bool) -> Environment:
    """Describe software and hardware."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor(),
        cores=os.cpu_count() or 1,
        gpu=gpu() if uses_gpu else None,
        packages=packages(),
    )


def same_numbers(one: Environment | None, other: Environment) -> bool:
    """Return whether two environments should give the same bytes; only packages that compute must be equal."""
    if one is None:
        return False
    versions = [[found.packages.get(name) for name in COMPUTING] for found in (one, other)]
    machines = [(found.python, found.processor, found.gpu) for found in (one, other)]
    return versions[0] == versions[1] and machines[0] == machines[1]


def environment_of(record: Record, root: Path) -> Environment | None:
    """Return the environment of a job; None if its description is missing or changed."""
    try:
        return read_environment(root / environment_path(record.run, record.circumstances.environment))
    except UserError:
        return None


@cache
def packages() -> dict[str, str]:
    """Return the version of every installed package; the first on the path counts."""
    found: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for name in os.listdir(folder):  # noqa: PTH208 (fastest: every job waits for it)
            # The folder's name holds name and version; reading the metadata would take far longer.
            if known := re.fullmatch(r"(.+?)-(\d[^-]*)(-py[\d.]+)?\.(dist|egg)-info", name):
                found.setdefault(known[1].lower().replace("_", "-"), known[2])
    return dict(sorted(found.items()))


def processor() -> str:
    """Return the model of the CPU."""
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        named = re.search(r"^model name\s*: (.+)$", cpu_info.read_text(errors="replace"), re.MULTILINE)
        if named:
            return named[1]
    return platform.processor() or platform.machine()


def gpu() -> Gpu:
    """Describe the GPU that torch uses."""
    import torch  # noqa: PLC0415 (jobs without a model do not need it)

    properties = torch.cuda.get_device_properties()
    return Gpu(
        name=properties.name,
        memory_bytes=properties.total_memory,
        driver=driver(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
    )


def has_gpu() -> bool:
    """Return whether torch can use a GPU here."""
    import torch  # noqa: PLC0415 (jobs without a model do not need it)

    return torch.cuda.is_available()


def driver() -> str | None:
    """Return the version of NVIDIA's driver; None if ``nvidia-smi`` fails."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def checkout() -> tuple[str | None, list[str] | None]:
    """Return the commit of the working directory, and its files of code that differ from it or are unknown to it.

    Each is None where git does not tell it (:func:`git_status`); a repository without commits has files alone.
    """
    try:
        lines = git_status().splitlines()
    except UserError:
        return None, None
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    # A changed file's line has eight fields before its path, or nine if it was renamed; an unknown one's has one.
    fields = {"1": 8, "2": 9, "u": 10, "?": 1}
    changed = [line.split(" ", fields[line[0]])[-1].split("\t")[0] for line in lines if line[0] in fields]
    return (commit if commit != "(initial)" else None), changed


def git_status(root: Path | None = None) -> str:
    """Return what git says of a checkout, by default the working directory: its commit, and the state of the code.

    Raises:
        UserError: if git is not installed, or there is no repository, or git refuses to read it.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--", *CODE]
    surroundings = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}  # Jobs run side by side.
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=surroundings)
    except OSError:
        raise UserError("git is not installed, or cannot be run; install it.") from None
    if done.returncode == 0:
        return done.stdout
    if "dubious ownership" in done.stderr:
        allowed = f"git config --global --add safe.directory {shlex.quote(str(Path.cwd()))}"
        raise UserError(f"git refuses to read a checkout that belongs to another user; allow it with `{allowed}`.")
    if "not a git repository" in done.stderr:
        raise UserError(f"{Path.cwd()} is no clone of the project; clone it with git.")
    raise UserError(f"git says: {' '.join(done.stderr.split())[:200]}; repair the checkout, or clone it again.")


def warn_about_git() -> None:
    """Print that records cannot name the commit of the code, where git does not tell it."""
    try:
        git_status()
    except UserError as error:
        print(f"The records will not name the commit of the code: {error}", file=sys.stderr)
