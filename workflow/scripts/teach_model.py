"""Teach a model what it is to know before it is edited."""

from pathlib import Path

from malmen.jobs import job
from malmen.resuming import Saving
from malmen.settings import OptimisationSettings
from malmen.steps.common import Machine, Subject
from malmen.steps.models import teach_model

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    teach_model(
        Subject(directory=Path(snakemake.input.model), **snakemake.params.subject),
        Path(snakemake.input.taught),
        OptimisationSettings(**snakemake.params.settings),
        snakemake.params.seed,
        Path(snakemake.output[0]),
        Machine(**snakemake.params.machine),
        saving,
    )

saving.clear()
