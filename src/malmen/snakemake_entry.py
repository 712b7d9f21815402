"""The project's ``snakemake`` command: Snakemake's own, except that targets may be typed in any place.

Some of Snakemake's options take any number of values, so that ``snakemake --cores 1 --resources gpu=1 all`` dies in
argument parsing: ``--resources`` swallows ``all``. This command tells values from targets by their form, puts the
targets behind a ``--`` at the end, and hands over to Snakemake.

It replaces the script of the same name that Snakemake installs, since pip installs the project after its dependencies.
Reinstalling Snakemake alone brings the stock script back; ``pip install --no-deps -e .`` restores this one. With the
stock script, type the targets first: ``snakemake all --cores 1 --resources gpu=1``.
"""

import re
import sys
from collections.abc import Sequence

import snakemake.cli

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
    """Move the targets that an option would swallow behind a ``--`` at the end.

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


def main() -> None:
    """Run Snakemake on the command line's arguments; exits with Snakemake's status."""
    snakemake.cli.main(separate_targets(sys.argv[1:]))
