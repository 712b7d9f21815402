"""Write a table of failures."""

from pathlib import Path

from malmen.figures.failures import write_failures
from malmen.jobs import job

with job(snakemake):
    stem = Path(snakemake.output.md).with_suffix("")
    write_failures(Path(snakemake.input[0]), snakemake.params.which, snakemake.params.records, stem)
