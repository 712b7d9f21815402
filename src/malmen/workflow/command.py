"""The project's ``snakemake`` command: Snakemake's own, except for targets in any place and locks of killed runs.

Some of Snakemake's options take any number of values, so ``snakemake --cores 1 --resources gpu=1 all`` ends with an
error: ``--resources`` takes ``all`` as a value. This command tells values from targets by their form, moves the targets
to the end, after a ``--``, and calls Snakemake.

A run that ends by ``kill -9`` or a power loss leaves Snakemake's locks, which Snakemake makes the user remove. Each run
of this command writes a mark of its process. If the process of every mark is gone and no other run works here, this
command removes the locks.

Before Snakemake starts, it refuses configurations that are missing or not YAML in one sentence, and finds a folder for
caches where HOME cannot be written to.

It replaces the script of the same name that Snakemake installs, since pip installs the project after its dependencies.
Reinstalling Snakemake alone brings Snakemake's script back; ``pip install --no-deps -e .`` restores this one. With
Snakemake's script, type the targets first: ``snakemake all --cores 1 --resources gpu=1``.
"""

import re
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import snakemake.cli

from malmen.errors import UserError
from malmen.runtime.caches import provide_caches
from malmen.runtime.files import read_yaml
from malmen.runtime.signals import is_snakemake

DEFAULT_CONFIGURATION = Path("config", "demo.yaml")
MARKS = Path(".snakemake", "runs")
LOCKS = Path(".snakemake", "locks")

_ASSIGNMENT = re.compile(r"[^/=]+=")  # NAME=VALUE, and not a path such as results/m=8
_CONFIG_FILE = re.compile(r".*\.(ya?ml|json)$")

# Options with any number of values, and the form of a value. Options of that kind whose values are rule names, files or
# single words (--until, --forcerun, --quiet, ...) are missing on purpose: nothing tells their values from targets.
_VALUE_FORMS = {
    "--resources": _ASSIGNMENT,
    "--res": _ASSIGNMENT,
    "--set-threads": _ASSIGNMENT,
    "--set-resources": _ASSIGNMENT,
    "--set-scatter": _ASSIGNMENT,
    "--set-resource-scopes": _ASSIGNMENT,
    "--default-resources": _ASSIGNMENT,
    "--default-res": _ASSIGNMENT,
    "--config": _ASSIGNMENT,
    "-C": _ASSIGNMENT,
    "--consider-ancient": _ASSIGNMENT,
    "--groups": _ASSIGNMENT,
    "--group-components": _ASSIGNMENT,
    "--configfile": _CONFIG_FILE,
    "--configfiles": _CONFIG_FILE,
}


def separate_targets(arguments: Sequence[str]) -> list[str]:
    """Move the targets that an option would take as its values to the end, after a ``--``.

    Args:
        arguments: What follows ``snakemake`` on the command line.

    Returns:
        The same arguments, in the same order except for the moved ones; unchanged if there is nothing to move.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept: list[str] = []
    targets: list[str] = []
    form: re.Pattern[str] | None = None
    for argument in arguments[:end]:
        if argument.startswith("-"):
            form = _VALUE_FORMS.get(argument)
        swallowed = form is not None and not argument.startswith("-") and not form.match(argument)
        (targets if swallowed else kept).append(argument)
    targets += arguments[end + 1 :]
    return [*kept, "--", *targets] if targets else list(arguments)


def configurations(arguments: Sequence[str]) -> list[Path]:
    """Return the configurations that a command line names, or the default one if that is here.

    Args:
        arguments: As :func:`separate_targets` returns them: what follows ``--configfile`` is its values.
    """
    files: list[Path] = []
    follows = False
    for argument in arguments:
        if argument.startswith("-"):
            option, _, value = argument.partition("=")
            follows = option in {"--configfile", "--configfiles"}
            files += [Path(value)] if follows and value else []
        elif follows:
            files.append(Path(argument))
    return files or list(filter(Path.is_file, [DEFAULT_CONFIGURATION]))


@contextmanager
def marked() -> Iterator[None]:
    """Mark this process as a run in the working directory; remove the locks of killed ones, or say who runs here."""
    if not Path("Snakefile").is_file():
        yield
        return
    marks = list(MARKS.glob("*"))
    running = [mark for mark in marks if is_running(mark)]
    if marks and not running and not any(map(works_here, psutil.process_iter())):
        locks = list(LOCKS.glob("*.lock"))
        for path in (*locks, *marks):
            path.unlink(missing_ok=True)
        if locks:
            print("An earlier run here was killed; its locks are removed, and its work goes on.", file=sys.stderr)
    if running:
        names, advice = ", ".join(mark.name for mark in running), advice_on(running)
        print(f"Another snakemake is at work here ({names}){advice}.", file=sys.stderr)
    own = psutil.Process()
    mark = MARKS / f"{socket.gethostname()} process {own.pid}"
    with suppress(OSError):  # A folder that cannot be written to is Snakemake's to complain about.
        MARKS.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(own.create_time()), encoding="ascii")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def is_running(mark: Path) -> bool:
    """Return whether a mark's process is alive; so is one of another machine as far as anyone here knows."""
    _, _, number = mark.name.partition(" process ")
    try:
        return is_elsewhere(mark) or psutil.Process(int(number)).create_time() == float(mark.read_text())
    except (psutil.Error, OSError, ValueError):
        return False


def is_elsewhere(mark: Path) -> bool:
    """Return whether a mark is of a run on another machine."""
    return mark.name.partition(" process ")[0] != socket.gethostname()


def advice_on(running: Sequence[Path]) -> str:
    """Say what to do if runs on other machines have ended without removing their marks; nothing if there is none."""
    marks = [str(mark.resolve()) for mark in running if is_elsewhere(mark)]
    if not marks:
        return ""
    return f"; if it is gone from there, run rm {shlex.join(marks)} and then snakemake --unlock"


def works_here(process: psutil.Process) -> bool:
    """Return whether another process is a run of Snakemake in the working directory."""
    try:
        here = process != psutil.Process() and Path(process.cwd()) == Path.cwd()
    except (psutil.Error, OSError):
        return False
    return here and is_snakemake(process)


def main() -> None:
    """Run Snakemake on the command line's arguments; exits with Snakemake's status."""
    arguments = separate_targets(sys.argv[1:])
    try:
        provide_caches(Path())
        for path in configurations(arguments):
            read_yaml(path)
    except UserError as error:
        sys.exit(str(error))
    with marked():
        snakemake.cli.main(arguments)
