"""Write the page that leads from figures and tables to the raw data."""

from pathlib import Path

from malmen.jobs import job
from malmen.provenance.page import write_chains

with job(snakemake):
    write_chains(snakemake.params.profile, [Path(file) for file in snakemake.input], Path(snakemake.output[0]))
