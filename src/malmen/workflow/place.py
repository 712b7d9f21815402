"""Where the workflow may run, and how Snakemake calls Python there."""

import os
import shlex
import sys
from pathlib import Path

from malmen.errors import UserError

INTERPRETER = Path(".snakemake", "python")
"""A link to the environment of this Python, in a checkout whose path must be quoted in a shell."""


def check_place(checkout: str) -> None:
    """Check that Snakemake runs in the checkout, and that it can work there.

    Args:
        checkout: the folder of the Snakefile.

    Raises:
        UserError: if ``--directory`` or ``--snakefile`` named another place, or Snakemake cannot handle the path.
    """
    place, here = Path(checkout).resolve(), Path.cwd()
    if place != here:
        raise UserError(
            f"The workflow runs only in its checkout, and keeps its results there, but Snakemake was sent to {here}; "
            f"run it without --directory and --snakefile after cd {shlex.quote(str(place))}, or clone the project "
            "to where the results shall lie."
        )
    if set(str(here)) & set("{}"):
        raise UserError(f"Snakemake takes braces in paths for wildcards; move the checkout {here} to a path without.")


def call_python_without_quotes() -> None:
    """Let Snakemake call this Python by a path that a shell takes as it is, as it does not quote it in its commands.

    Where spaces, quotes or the like are in the path, it becomes one below :data:`INTERPRETER`, relative to the
    checkout: Python finds the packages of its environment from there, too.
    """
    if shlex.quote(sys.executable) == sys.executable:
        return
    executable = Path(sys.executable)
    environment = executable.parents[1].resolve()
    if INTERPRETER.resolve() != environment:
        INTERPRETER.parent.mkdir(exist_ok=True)
        temporary = INTERPRETER.with_name(f"python.{os.getpid()}")
        temporary.symlink_to(environment)
        temporary.replace(INTERPRETER)
    sys.executable = str(INTERPRETER / "bin" / executable.name)
