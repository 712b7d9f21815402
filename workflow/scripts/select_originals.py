"""Select the prompts that are to be rephrased."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.data.rebuild import select_originals

with job(snakemake):
    train, validation = (
        [Path(file) for file in files] for files in (snakemake.input.train, snakemake.input.validation)
    )
    report = select_originals(snakemake.wildcards.corpus, train, validation, Path(snakemake.output.originals))
    report.write(Path(snakemake.output.report))
    logger.info("%s", report)
