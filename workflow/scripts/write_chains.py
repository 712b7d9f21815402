"""Write the page that leads from figures and tables to the raw data."""

from pathlib import Path

from malmen.audit.page import write_chains
from malmen.jobs.job import job

with job(snakemake):
    write_chains(snakemake.params.run, [Path(file) for file in snakemake.input], Path(snakemake.output[0]))
