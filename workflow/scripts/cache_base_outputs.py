"""Compute what editing needs of the unedited model, once for many runs."""

from pathlib import Path

from pydantic import TypeAdapter

from malmen.jobs.job import job
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.jobs.cache_base_outputs import allowed_gb, write_cache
from malmen.jobs.common import Machine, ModelSpec

with job(snakemake):
    write_cache(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        TypeAdapter(HyperNetworkEditorSettings).validate_python(snakemake.params.settings),
        Path(snakemake.input.tuples),
        Path(snakemake.output[0]),
        allowed_gb(snakemake.config),
        Machine(**snakemake.params.machine),
        snakemake.params.n_tuples,
    )
