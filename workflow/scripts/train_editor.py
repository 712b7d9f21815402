"""Train an editor for some numbers of edits and seeds."""

from pathlib import Path

from pydantic import TypeAdapter

from malmen.jobs.job import job
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.on_ranks import on_ranks
from malmen.jobs.train_editor import train_editors
from malmen.results.run import runs
from malmen.runtime.checkpoint import Saving
from malmen.runtime.ranks import ranks

on_ranks(snakemake)

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    costs = train_editors(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        TypeAdapter(HyperNetworkEditorSettings).validate_python(snakemake.params.settings),
        Path(snakemake.input.train),
        runs(snakemake.params.n_edits, snakemake.params.seeds),
        Path(snakemake.output.trained),
        Machine(**snakemake.params.machine),
        saving,
        Path(snakemake.input.cache[0]) if snakemake.input.cache else None,
    )
    if ranks().first:
        costs.write(Path(snakemake.output.cost))

saving.clear()
