"""Publishing results: git keeps figures, tables, metrics, costs and records; DVC keeps data sets and checkpoints.

Each output that DVC keeps, a file or a directory, has a pointer ``<output>.dvc`` in git; ``.gitignore`` names the same
outputs. DVC computes only MD5, so the pointers of downloads also record their SHA-256.
"""

import configparser
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.provenance.records import downloads_of
from malmen.runtime.dvc import dvc, pointer, pull, push
from malmen.runtime.files import write_text

logger = logging.getLogger(__name__)

SECRETS = re.compile(r"password|passphrase|secret|token|access_key_id|account_key|connection_string|credential|sas")


def kept_by_dvc(root: Path, run: str) -> list[Path]:
    """Return the existing outputs of a run that DVC keeps, sorted, relative to ``root``.

    Downloads, which all runs share, are those that its jobs read.
    """
    data, results = (root / name / run for name in ("data", "results"))
    downloads = [root / path for path in downloads_of(run, root) if (root / path).is_file()]
    models = (*results.glob("models/*/*"), *results.glob("editors/*/*/*"), *data.glob("*/translators/*"))
    checkpoints = [path for path in models if path.is_dir()]
    datasets = [path for path in data.rglob("*") if path.suffix in (".jsonl", ".txt")]
    datasets = [path for path in datasets if not set(path.parents) & set(checkpoints)]
    moments = results.glob("editors/*/*/*.safetensors")
    found = (path.relative_to(root) for path in (*downloads, *datasets, *checkpoints, *moments))
    return sorted(path for path in found if not path.name.startswith("."))  # A leading dot marks unfinished outputs.


def pointers(root: Path, run: str) -> list[Path]:
    """Return the DVC pointers of a run and of the downloads that its jobs read, sorted, relative to ``root``."""
    folders = (root / "data" / run, root / "results" / run)
    found = [path.relative_to(root) for folder in folders for path in folder.rglob("*.dvc")]
    downloads = [pointer(Path(path)) for path in downloads_of(run, root)]
    return sorted([*found, *(path for path in downloads if (root / path).is_file())])


def publish(root: Path, run: str) -> None:
    """Add data sets and checkpoints of a run to DVC, push them if a remote is set, and log what to commit.

    The next call completes an interrupted one.

    Args:
        root: the checkout.
        run: name of the run.

    Raises:
        UserError: if ``root`` is not a checkout, git tracks a password, DVC is busy, or the remote refuses.
    """
    check_checkout(root)
    check_secrets(root / ".dvc" / "config")
    outputs = kept_by_dvc(root, run)
    if outputs:
        logger.info("adding %d data files and checkpoints to DVC", len(outputs))
        dvc(root, "add", *map(str, outputs))
        for output in outputs:
            note_source(root / pointer(output))
        remote = push(root, [pointer(output) for output in outputs])
        if remote is None:
            logger.info("no DVC remote is set, so nothing is pushed; set one with `dvc remote add --default NAME URL`")
        else:
            logger.info("pushed them to %s", remote)
    else:
        logger.info("no data sets or checkpoints of %s exist here; DVC keeps the published ones", run)
    logger.info("commit next: git add data results .dvc && git commit -m 'Results of %s'", run)


def check_checkout(root: Path) -> None:
    """Raise :class:`UserError` unless ``root`` is a git checkout with DVC."""
    if not (root / ".git").exists() or not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root} is not a git clone of this project (it has no .git or no .dvc); clone it with git.")


def check_secrets(config: Path) -> None:
    """Raise :class:`UserError` if the DVC configuration that git tracks holds a password or a key, or is malformed."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string("\n".join(line.strip() for line in config.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise UserError(
            f"{config} cannot be read as a configuration of DVC ({type(error).__name__}); correct it."
        ) from None
    for section in parser.sections():
        for name, value in parser.items(section):
            in_url = re.search(r"//[^/@]*:[^/@]*@", value)
            if in_url or (SECRETS.search(name) and not name.startswith("ask_")):
                raise UserError(
                    f"{config} is tracked by git and holds a secret ({name} of {section}); remove it, set it with "
                    f"`dvc remote modify --local`, and change it if it was committed."
                )


def note_source(path: Path) -> None:
    """Write a download's URLs, SHA-256 (or git blob id) and licence into its pointer."""
    source = upstream_files().get(path.stem)
    if path.parent.name != "raw" or source is None:
        return
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    checksum = {"sha256": source.sha256} if source.sha256 else {"git_blob": source.git_blob}
    meta = {"urls": list(source.urls), **checksum, "licence": source.licence}
    if content.get("meta") != meta:
        write_text(path, yaml.safe_dump({**content, "meta": meta}, sort_keys=False))


def restore(root: Path, run: str, configfile: Path | None, full: bool) -> None:
    """Mark the results in a fresh clone as up to date, so that Snakemake can redraw figures without training.

    A checkout gives files new times in any order, and lacks Snakemake's metadata. So ``snakemake --touch`` sets the
    times of all results in the order of the jobs, and records the present settings and code for them.

    Args:
        root: the checkout.
        run: name of the run.
        configfile: its configuration; None for the default one.
        full: whether to pull data sets and checkpoints from DVC too.

    Raises:
        UserError: if ``root`` is not a checkout, nothing was published, or DVC cannot pull a file.
    """
    check_checkout(root)
    if not (root / "results" / run).is_dir():
        raise UserError(f"The checkout has no results/{run}; publish and commit them first, or set --configfile.")
    if full:
        pull_all(root, pointers(root, run))
    chosen = ["--configfile", str(configfile)] if configfile else []
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *chosen, "--touch", "--forceall", "all"]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`snakemake --touch` failed: {done.stderr.strip().splitlines()[-1]}")


def pull_all(root: Path, wanted: Sequence[Path]) -> None:
    """Pull the outputs of pointers; raise :class:`UserError` if there are none, or DVC cannot pull them all."""
    if not wanted:
        raise UserError(
            "Nothing was published: there are no .dvc files of data sets and checkpoints; run `snakemake publish`."
        )
    logger.info("pulling %d data files and checkpoints from DVC", len(wanted))
    pull(root, wanted)
