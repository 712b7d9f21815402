"""Write the page with the lineage of every figure and table."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.audit.page import write_lineage

with job(snakemake):
    sources = [Path(file) for file in snakemake.input]
    write_lineage(snakemake.params.run, sources, snakemake.params.setting["note"], Path(snakemake.output[0]))
