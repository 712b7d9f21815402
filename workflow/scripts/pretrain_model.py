"""Train a tiny model from nothing."""

from pathlib import Path

from malmen.jobs import job
from malmen.resuming import Saving
from malmen.settings import OptimisationSettings, ScratchSettings
from malmen.steps.common import Machine
from malmen.steps.models import pretrain_model

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    pretrain_model(
        snakemake.config["models"][snakemake.wildcards.model]["label"],
        Path(snakemake.input.text),
        ScratchSettings(**snakemake.params.shape),
        OptimisationSettings(**snakemake.params.settings),
        snakemake.params.seed,
        Path(snakemake.output[0]),
        Machine(**snakemake.params.machine),
        saving,
    )

saving.clear()
