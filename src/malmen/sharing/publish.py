"""Publishing results: git keeps figures, tables, metrics, costs and records; DVC keeps data sets and checkpoints.

DVC also keeps what quotes records of a real data set, as that is other people's text: tables and lists of failures.
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

from malmen.audit.audit import Outcome
from malmen.audit.code_check import trail_of_code
from malmen.audit.report import origin
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.provenance.records import downloads_of
from malmen.runtime.dvc import dvc, pointer, pull, push
from malmen.runtime.files import write_text
from malmen.runtime.text import counted, first_few

logger = logging.getLogger(__name__)

LARGE = 20_000_000
"""Size in bytes of published files from which a repository becomes slow to clone."""
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


def publish(root: Path, run: str, quoting: Sequence[str] = ()) -> None:
    """Add data sets and checkpoints of a run to DVC, push them if a remote is set, and log what to commit.

    The next call completes an interrupted one.

    Args:
        root: the checkout.
        run: name of the run.
        quoting: files that quote records of a real data set, relative to ``root``.

    Raises:
        UserError: if ``root`` is not a checkout, git tracks a password, no commit holds the code of a result, DVC is
            busy, or the remote refuses.
    """
    check_checkout(root)
    check_secrets(root / ".dvc" / "config")
    check_commits(root, run)
    outputs = sorted({*kept_by_dvc(root, run), *(Path(file) for file in quoting if (root / file).is_file())})
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
    files = kept_by_git(root, run)
    size = sum(files.values())
    logger.info("git will hold %d files, %.1f MB", len(files), size / 1e6)
    if size > LARGE:
        largest = first_few(sorted(files, key=lambda name: -files[name]))
        logger.warning("that is much for a repository; the largest are %s", largest)
    logger.info("commit next: git add data results .dvc && git commit -m 'Results of %s'", run)


def check_commits(root: Path, run: str) -> None:
    """Log the commits of the code of results; raise :class:`UserError` if no commit holds it."""
    trail = trail_of_code(run, root)
    for line in origin(Outcome(trail, [], [], [], "")):
        logger.info("%s", line)
    lost = {one.job: one.reason for one in trail.broken if one.job in trail.code}
    if lost:
        raise UserError(
            f"Nobody could check the code of {counted(len(lost), 'job')}, {first_few(list(lost))}: "
            f"{next(iter(lost.values()))}. Commit the code, and run them again."
        )


def kept_by_git(root: Path, run: str) -> dict[str, int]:
    """Return the sizes in bytes of the files of a run that git holds or will hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", f"data/{run}", f"results/{run}"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: (root / name).stat().st_size for name in listed if name and (root / name).is_file()}


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


def restore(root: Path, run: str, configfile: Path, full: bool) -> list[str]:
    """Mark the results in a fresh clone as up to date, so that Snakemake can redraw figures without training.

    A checkout gives files new times in any order, and lacks Snakemake's metadata. So ``snakemake --touch`` sets the
    times of all results in the order of the jobs, and records the present settings and code for them.

    Args:
        root: the checkout.
        run: name of the run.
        configfile: its configuration.
        full: whether to pull data sets and checkpoints from DVC too.

    Returns:
        Sentences about code that has changed since the results were made; they count as up to date all the same.

    Raises:
        UserError: if ``root`` is not a checkout, nothing was published, or DVC cannot pull a file.
    """
    check_checkout(root)
    if not (root / "results" / run).is_dir():
        raise UserError(f"The checkout has no results/{run}; publish and commit them first, or set --configfile.")
    if full:
        pull_all(root, pointers(root, run))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", str(configfile)]
    command += ["--touch", "--forceall", "all"]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`snakemake --touch` failed: {done.stderr.strip().splitlines()[-1]}")
    trail = trail_of_code(run, root)
    rules = sorted({trail.records[name].rule for name, code in trail.code.items() if code.changed})
    again = f"To make them again: snakemake --configfile {configfile} --forcerun {' '.join(rules)}"
    return [*origin(Outcome(trail, [], [], [], "")), again] if rules else []


def pull_all(root: Path, wanted: Sequence[Path]) -> None:
    """Pull the outputs of pointers; raise :class:`UserError` if there are none, or DVC cannot pull them all."""
    if not wanted:
        raise UserError(
            "Nothing was published: there are no .dvc files of data sets and checkpoints; run `snakemake publish`."
        )
    logger.info("pulling %d data files and checkpoints from DVC", len(wanted))
    pull(root, wanted)
