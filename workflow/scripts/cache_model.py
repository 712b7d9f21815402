"""Compute what runs on a model share."""

from pathlib import Path

from malmen.jobs import job
from malmen.settings import editor_settings
from malmen.steps.cache import allowed_gb, write_cache
from malmen.steps.common import Machine, Subject

with job(snakemake):
    write_cache(
        Subject(directory=Path(snakemake.input.model), **snakemake.params.subject),
        editor_settings(snakemake.params.settings),
        Path(snakemake.input.tuples),
        Path(snakemake.output[0]),
        allowed_gb(snakemake.config),
        Machine(**snakemake.params.machine),
    )
