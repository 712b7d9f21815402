"""List the answers that one group of edits left or made wrong."""

from pathlib import Path

from malmen.config.settings import editor_settings
from malmen.jobs.common import Machine, ModelSpec, Run, write_json
from malmen.jobs.job import job
from malmen.jobs.list_failures import list_failures

with job(snakemake):
    spec = ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model)
    settings = editor_settings(snakemake.params.settings)
    trained = Path(snakemake.input.trained[0]) if settings.trained else None
    covariance = Path(snakemake.input.covariance[0]) if snakemake.input.covariance else None
    run = Run(int(snakemake.wildcards.n_edits), int(snakemake.wildcards.seed))
    machine = Machine(**snakemake.params.machine)
    tuples = Path(snakemake.input.tuples)
    failures = list_failures(spec, settings, trained, covariance, tuples, run, machine)
    write_json(Path(snakemake.output[0]), {"editor": snakemake.wildcards.editor, **failures})
