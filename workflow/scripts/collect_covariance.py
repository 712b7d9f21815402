"""Estimate the covariance of the keys of the layers that MEMIT edits."""

from pathlib import Path

from pydantic import TypeAdapter

from malmen.jobs.job import job
from malmen.config.memit import MemitEditorSettings
from malmen.jobs.collect_covariance import collect_covariance
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.on_ranks import on_ranks
from malmen.runtime.ranks import ranks

on_ranks(snakemake)

with job(snakemake):
    costs = collect_covariance(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        TypeAdapter(MemitEditorSettings).validate_python(snakemake.params.settings),
        Path(snakemake.input.text[0]) if snakemake.input.text else None,
        Path(snakemake.output.covariance),
        Machine(**snakemake.params.machine),
    )
    if ranks().first:
        costs.write(Path(snakemake.output.cost))
