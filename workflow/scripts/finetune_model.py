"""Fine-tune a model on what it must know before it is edited."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.config.optimisation import OptimisationSettings
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.finetune_model import finetune_model
from malmen.runtime.checkpoint import Saving

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    finetune_model(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        Path(snakemake.input.tuples),
        OptimisationSettings(**snakemake.params.settings),
        snakemake.params.seed,
        Path(snakemake.output[0]),
        Machine(**snakemake.params.machine),
        saving,
    )

saving.clear()
