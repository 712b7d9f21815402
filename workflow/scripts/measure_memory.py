"""Measure the peak memory of meta-steps, each in a process of its own."""

from pathlib import Path

from pydantic import TypeAdapter

from malmen.jobs.job import job
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.measure_memory import Computation, measure_memory

with job(snakemake):
    measured = measure_memory(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        TypeAdapter(dict[Computation, HyperNetworkEditorSettings]).validate_python(snakemake.params.editors),
        Path(snakemake.input.tuples),
        snakemake.params.n_edits,
        snakemake.params.limit_bytes,
        Machine(**snakemake.params.machine),
    )
    measured.write(Path(snakemake.output[0]))
