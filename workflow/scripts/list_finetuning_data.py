"""List what models are fine-tuned on, and the text on which tiny ones are pretrained."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.data.rebuild import list_finetuning_data

with job(snakemake):
    list_finetuning_data(
        snakemake.wildcards.dataset,
        Path(snakemake.input.originals[0]),
        [Path(file) for file in snakemake.input.unrelated],
        Path(snakemake.output[0]).parent,
    )
