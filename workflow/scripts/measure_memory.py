"""Measure the peak memory of meta-steps, each in a process of its own."""

from pathlib import Path

from pydantic import TypeAdapter

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.job import job
from malmen.jobs.measure_memory import Computation, trials, write_memory

with job(snakemake):
    spec = ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model)
    editors = TypeAdapter(dict[Computation, HyperNetworkEditorSettings]).validate_python(snakemake.params.editors)
    machine = Machine(**snakemake.params.machine)
    limit = snakemake.params.limit_bytes
    tried = trials(spec, editors, Path(snakemake.input.tuples), snakemake.params.n_edits, limit, machine)
    write_memory(Path(snakemake.output[0]), tried)
