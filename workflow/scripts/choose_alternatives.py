"""Choose a wrong answer to every question."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.data.rebuild import choose_alternatives

with job(snakemake):
    originals, out = Path(snakemake.input.originals), Path(snakemake.output.alternatives)
    report = choose_alternatives(originals, snakemake.params.seed, out)
    report.write(Path(snakemake.output.report))
    logger.info("%s", report)
