"""Sharing results: git keeps figures, tables, metrics, costs and records, DVC keeps data sets and checkpoints.

What DVC keeps is one output of one job each, a file or a directory, with a pointer ``<output>.dvc`` beside it in git.
``.gitignore`` names the same outputs. DVC knows MD5 only; SHA-256 of downloads is noted in their pointers.
"""

import configparser
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.runtime.dvc import dvc, pointer
from malmen.runtime.files import write_text

logger = logging.getLogger(__name__)

SECRETS = re.compile(r"password|passphrase|secret|token|access_key_id|account_key|connection_string|credential|sas")


def kept_by_dvc(root: Path, run: str) -> list[Path]:
    """Return what DVC is to keep of a run, as far as it is there, in order: jobs' outputs, relative to ``root``.

    Downloads are shared by all profiles.
    """
    data, results = (root / name / run for name in ("data", "results"))
    downloads = [path for path in (root / "data" / "raw").glob("*") if path.name in upstream_files()]
    models = (*results.glob("models/*/*"), *results.glob("editors/*/*/*"), *data.glob("*/translators/*"))
    checkpoints = [path for path in models if path.is_dir()]
    datasets = [path for path in data.rglob("*") if path.suffix in (".jsonl", ".txt")]
    datasets = [path for path in datasets if not set(path.parents) & set(checkpoints)]
    moments = results.glob("editors/*/*/*.safetensors")
    found = (path.relative_to(root) for path in (*downloads, *datasets, *checkpoints, *moments))
    return sorted(path for path in found if not path.name.startswith("."))  # Others are unfinished.


def pointers(root: Path, run: str) -> list[Path]:
    """Return the pointers to what DVC keeps of a run, in order, relative to ``root``."""
    folders = (root / "data" / run, root / "results" / run)
    return sorted(path.relative_to(root) for folder in folders for path in folder.rglob("*.dvc"))


def publish(root: Path, run: str) -> None:
    """Hand data sets and checkpoints of a run to DVC and, if a remote is set, push them; say what to commit.

    Whatever an interrupted call left to do is done by the next.

    Args:
        root: the checkout.
        run: whose data and results.

    Raises:
        UserError: if this is not a checkout, a password would get into git, DVC is busy, or the remote refuses.
    """
    check_checkout(root)
    check_secrets(root / ".dvc" / "config")
    outputs = kept_by_dvc(root, run)
    if outputs:
        logger.info("adding %d data files and checkpoints to DVC", len(outputs))
        dvc(root, "add", *map(str, outputs))
        for output in outputs:
            note_source(root / pointer(output))
        remote = default_remote(root)
        if remote is None:
            logger.info("no DVC remote is set, so nothing is pushed; set one with `dvc remote add --default NAME URL`")
        else:
            logger.info("pushing them to the DVC remote %s", remote)
            dvc(root, "push", *(str(pointer(output)) for output in outputs))
    else:
        logger.info("no data set and no checkpoint of %s is here: what was published of them stays as it is", run)
    logger.info("commit next: git add data results .dvc && git commit -m 'Results of %s'", run)


def check_checkout(root: Path) -> None:
    """Raise :class:`UserError` unless ``root`` is a git checkout that DVC knows."""
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
                    f"{config} is tracked by git and holds a secret ({name} of {section}); take it out and set it with "
                    f"`dvc remote modify --local`, which git never sees, and change it if it was committed."
                )


def default_remote(root: Path) -> str | None:
    """Return the name of the remote to which DVC pushes, if one is set."""
    return dict(line.split("=", 1) for line in dvc(root, "config", "--list").splitlines()).get("core.remote")


def note_source(path: Path) -> None:
    """Note in the pointer to a download where it comes from: URLs, SHA-256 (or git's id) and licence."""
    source = upstream_files().get(path.stem)
    if path.parent.name != "raw" or source is None:
        return
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    checksum = {"sha256": source.sha256} if source.sha256 else {"git_blob": source.git_blob}
    meta = {"urls": list(source.urls), **checksum, "licence": source.licence}
    if content.get("meta") != meta:
        write_text(path, yaml.safe_dump({**content, "meta": meta}, sort_keys=False))


def restore(root: Path, run: str, configfile: Path | None, downloads: bool, full: bool) -> None:
    """Make a fresh checkout's results count as finished, so that figures are redrawn and nothing is trained.

    Figures and tables need only what git holds. Git and DVC date files by when they were checked out, in no order, and
    Snakemake's own notes are not there: so Snakemake dates what is there anew, in the order in which it is made, and
    notes the settings and code that it counts as made with.

    Args:
        root: the checkout.
        run: whose data and results.
        configfile: its configuration, None for the default one.
        downloads: whether its data sets are made from downloads.
        full: whether to bring data sets and checkpoints from DVC too.

    Raises:
        UserError: if this is not a checkout, nothing was published, or the remote does not yield it.
    """
    check_checkout(root)
    if not (root / "results" / run).is_dir():
        raise UserError(f"The checkout holds no results/{run}; see that they were committed, or name another one.")
    if full:
        raw = sorted(path.relative_to(root) for path in (root / "data" / "raw").glob("*.dvc"))
        pull_all(root, [*pointers(root, run), *(raw if downloads else [])])
    chosen = ["--configfile", str(configfile)] if configfile else []
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *chosen, "--touch", "--forceall", "all"]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"Snakemake could not date the results: {done.stderr.strip().splitlines()[-1]}")


def pull_all(root: Path, wanted: Iterable[Path]) -> None:
    """Bring what the pointers stand for; raise :class:`UserError` if that is nothing, or not to be had."""
    targets = [str(path) for path in wanted]
    if not targets:
        raise UserError(
            "Nothing was published: there are no .dvc files of data sets and checkpoints; run `snakemake publish`."
        )
    logger.info("bringing %d data files and checkpoints from DVC", len(targets))
    try:
        dvc(root, "pull", *targets)
    except UserError as error:
        remote = default_remote(root)
        where = (
            f"the remote {remote}" if remote else "DVC's cache (no remote is set: `dvc remote add --default NAME URL`)"
        )
        raise UserError(f"Not everything could be brought from {where}: {error}") from None
