"""Train a tiny model from nothing."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import ScratchSettings
from malmen.jobs.common import Machine
from malmen.jobs.pretrain_model import pretrain_model
from malmen.runtime.checkpoint import Saving

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    pretrain_model(
        snakemake.wildcards.model,
        Path(snakemake.input.text),
        ScratchSettings(**snakemake.params.shape),
        OptimisationSettings(**snakemake.params.settings),
        snakemake.params.seed,
        Path(snakemake.output[0]),
        Machine(**snakemake.params.machine),
        saving,
    )

saving.clear()
