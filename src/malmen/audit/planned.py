"""The jobs of a configuration, with the present settings, code and files of each.

Snakemake resolves them. It has no documented function that returns its graph of jobs, so this module alone uses an
internal one; a test compares the result with Snakemake's output.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmen.errors import UserError
from malmen.provenance.records import name_of, plain
from malmen.runtime.code_digest import script_digest


@dataclass(frozen=True)
class PlannedJob:
    """A job as it would run now.

    Attributes:
        rule: its rule.
        wildcards: the values of its rule's wildcards.
        settings: its resolved parameters, as JSON values.
        code: digests of every module that it uses and of its script.
        inputs: the files and directories that it reads.
        outputs: the files and directories that it makes.
    """

    rule: str
    wildcards: dict[str, str]
    settings: dict[str, Any]
    code: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its record (:attr:`malmen.provenance.records.Record.name`)."""
        return name_of(self.rule, self.wildcards)


def planned_jobs(configfile: Path, root: Path) -> list[PlannedJob]:
    """Return all jobs of a configuration that run a script, finished or not.

    Args:
        configfile: the configuration.
        root: the project's root.

    Raises:
        UserError: if Snakemake cannot resolve them.
    """
    with resolved(configfile, root) as jobs:
        return [planned(job) for job in jobs if job.rule.script]


@contextlib.contextmanager
def resolved(configfile: Path, root: Path) -> Iterator[list[Any]]:
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
                config_settings=ConfigSettings(configfiles=[configfile.absolute()]),
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


def planned(job: Any) -> PlannedJob:
    """Return one of Snakemake's jobs as a :class:`PlannedJob`."""
    settings = plain(dict(job.params.items()))
    code = settings.pop("code", {})
    script = Path(job.rule.basedir.get_path_or_uri(secret_free=True)) / job.rule.script
    return PlannedJob(
        rule=job.rule.name,
        wildcards={name: str(value) for name, value in job.wildcards_dict.items()},
        settings=settings,
        code={**code, f"scripts/{script.name}": script_digest(script)},
        inputs=tuple(map(str, job.input)),
        outputs=tuple(map(str, job.output)),
    )
