"""Drop the rephrasings that a fine-tuned model answers otherwise than their originals."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.filter_rephrasings import filter_part

with job(snakemake):
    report = filter_part(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        Path(snakemake.input.originals),
        Path(snakemake.input.rephrasings),
        snakemake.params.batch_size,
        Path(snakemake.output.rephrasings),
        Machine(**snakemake.params.machine),
    )
    report.write(Path(snakemake.output.report))
    logger.info("%s", report)
