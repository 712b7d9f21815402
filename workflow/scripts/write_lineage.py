"""Write the page with the lineage of every figure and table."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.audit.page import write_lineage

with job(snakemake):
    write_lineage(snakemake.params.run, [Path(file) for file in snakemake.input], Path(snakemake.output[0]))
