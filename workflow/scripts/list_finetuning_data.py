"""List what models are fine-tuned on, and the text on which tiny ones are pretrained."""

from pathlib import Path

from malmen.data.rebuild import teach_originals
from malmen.jobs.job import job

with job(snakemake):
    teach_originals(
        snakemake.wildcards.dataset,
        Path(snakemake.input.originals[0]),
        [Path(file) for file in snakemake.input.unrelated],
        Path(snakemake.output[0]).parent,
    )
