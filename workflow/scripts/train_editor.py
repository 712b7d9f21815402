"""Train an editor for one number of edits."""

from pathlib import Path

from malmen.jobs import job
from malmen.settings import editor_settings
from malmen.steps.common import Machine, Subject
from malmen.steps.training import train_editor

with job(snakemake.log[0]):
    train_editor(
        Subject(directory=Path(snakemake.input.model), **snakemake.params.subject),
        editor_settings(snakemake.params.settings),
        Path(snakemake.input.train),
        int(snakemake.wildcards.m),
        int(snakemake.wildcards.seed),
        Path(snakemake.output.editor).parent,
        Machine(**snakemake.params.machine),
    )
