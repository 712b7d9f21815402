"""Write a table of failures."""

from pathlib import Path

from malmen.figures.failure_table import write_failures
from malmen.jobs.job import job

with job(snakemake):
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    write_failures(Path(snakemake.input[0]), params.which, params.records, params.data, stem)
