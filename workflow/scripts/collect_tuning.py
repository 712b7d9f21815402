"""Collect metrics on the tuning split into one table."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.metrics import load_metrics, write_csv

with job(snakemake):
    write_csv(Path(snakemake.output[0]), load_metrics([Path(file) for file in snakemake.input]))
