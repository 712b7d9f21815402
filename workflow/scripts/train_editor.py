"""Train an editor for some numbers of edits and seeds."""

from pathlib import Path

from malmen.jobs import job
from malmen.resuming import Saving
from malmen.settings import editor_settings
from malmen.steps.common import Machine, Subject, runs
from malmen.steps.training import train_editors

with job(snakemake.log[0]):
    train_editors(
        Subject(directory=Path(snakemake.input.model), **snakemake.params.subject),
        editor_settings(snakemake.params.settings),
        Path(snakemake.input.train),
        runs(snakemake.params.n_edits, snakemake.params.seeds),
        Path(snakemake.output[0]),
        Machine(**snakemake.params.machine),
        Saving.configured(snakemake.params.state, snakemake.config),
    )
