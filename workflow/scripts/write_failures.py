"""Write a table of failures."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.failure_table import write_failures
from malmen.figures.setting import Setting

with job(snakemake):
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    setting = Setting(**params.setting)
    write_failures(Path(snakemake.input[0]), params.which, params.records, params.data, stem, setting)
