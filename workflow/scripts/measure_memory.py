"""Measure the peak memory of meta-steps, each in a process of its own."""

from pathlib import Path

from malmen.config.editors import editor_settings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.job import job
from malmen.jobs.measure_memory import trials, write_memory

with job(snakemake):
    spec = ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model)
    editors = {name: editor_settings(settings) for name, settings in snakemake.params.editors.items()}
    machine = Machine(**snakemake.params.machine)
    limit = snakemake.params.limit_bytes
    tried = trials(spec, editors, Path(snakemake.input.tuples), snakemake.params.n_edits, limit, machine)
    write_memory(Path(snakemake.output[0]), tried)
