"""The jobs of a configuration, with the present settings, code and files of each.

Snakemake resolves them. It has no documented function that returns its graph of jobs, so this module alone uses an
internal one; a test compares the result with Snakemake's output.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from malmen.errors import UserError
from malmen.provenance.records import name_of, plain
from malmen.runtime.code_digest import script_digest


@dataclass(frozen=True, kw_only=True)
class Step:
    """A job, by its place in the graph of jobs.

    Attributes:
        rule: its rule.
        wildcards: the values of its rule's wildcards.
        inputs: the files and directories that it reads.
        outputs: the files and directories that it makes.
    """

    rule: str
    wildcards: dict[str, str]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its record (:attr:`malmen.provenance.records.Record.name`)."""
        return name_of(self.rule, self.wildcards)


@dataclass(frozen=True, kw_only=True)
class PlannedJob(Step):
    """A job as it would run now.

    Attributes:
        settings: its resolved parameters, as JSON values.
        code: digests of every module that it uses and of its script.
    """

    settings: dict[str, Any]
    code: dict[str, str]


def planned_jobs(configfile: Path, root: Path, overrides: Mapping[str, Any] | None = None) -> list[PlannedJob]:
    """Return all jobs of a configuration that run a script, finished or not.

    Args:
        configfile: the configuration.
        root: the project's root.
        overrides: what replaces values of the configuration, as :func:`overridden` returns it.

    Raises:
        UserError: if Snakemake cannot resolve them.
    """
    with resolved(configfile, root, overrides) as jobs:
        return [planned(job) for job in jobs if job.rule.script]


def overridden(entries: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``--config``, as Snakemake reads them.

    Raises:
        UserError: if Snakemake would refuse them.
    """
    from snakemake.cli import parse_config  # noqa: PLC0415 (takes a second to import)

    try:
        return dict(parse_config(entries))
    except ValueError:
        raise UserError(
            f"--config {' '.join(entries)} cannot be read; write KEY=VALUE with a key of the configuration's top "
            "level, such as --config 'seeds=[0]' 'models={gptj: {n_edits: [512]}}'."
        ) from None


@contextlib.contextmanager
def resolved(configfile: Path, root: Path, overrides: Mapping[str, Any] | None = None) -> Iterator[list[Any]]:
    """Yield Snakemake's jobs and suppress its output."""
    from snakemake.api import SnakemakeApi  # noqa: PLC0415 (takes a second to import)
    from snakemake.settings.enums import Quietness  # noqa: PLC0415
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings  # noqa: PLC0415

    said = io.StringIO()
    output = OutputSettings(quiet={Quietness.ALL}, dryrun=True, enable_file_logging=False)
    try:
        with contextlib.redirect_stderr(said), SnakemakeApi(output) as api:
            workflow_api = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(config=dict(overrides or {}), configfiles=[configfile.absolute()]),
                snakefile=root / "Snakefile",
                workdir=root.absolute(),
            )
            workflow_api.dag(DAGSettings())
            workflow = workflow_api._workflow
            workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True, nolock=True)
            workflow._build_dag()
            yield list(workflow.dag.jobs)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{said.getvalue()} {error}".split())[:300]
        raise UserError(f"Snakemake cannot resolve the jobs of {configfile} ({reason}); try 'snakemake -n'.") from None


def step(job: Any) -> Step:
    """Return one of Snakemake's jobs as a :class:`Step`."""
    return Step(
        rule=job.rule.name,
        wildcards={name: str(value) for name, value in job.wildcards_dict.items()},
        inputs=tuple(map(str, job.input)),
        outputs=tuple(map(str, job.output)),
    )


def planned(job: Any) -> PlannedJob:
    """Return one of Snakemake's jobs as a :class:`PlannedJob`."""
    settings = plain(dict(job.params.items()))
    code = settings.pop("code", {})
    script = Path(job.rule.basedir.get_path_or_uri(secret_free=True)) / job.rule.script
    return PlannedJob(
        **vars(step(job)), settings=settings, code={**code, f"scripts/{script.name}": script_digest(script)}
    )


def main() -> None:
    """Print the jobs of the configuration that the first argument names, in the working directory, as JSON."""
    print(json.dumps([asdict(job) for job in planned_jobs(Path(sys.argv[1]), Path())]))


if __name__ == "__main__":
    main()
