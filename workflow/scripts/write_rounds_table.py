"""Write the table of editors at once and in rounds."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.rounds_table import RoundsRow, write_rounds_table
from malmen.figures.setting import Setting

with job(snakemake):
    rows = [RoundsRow.of(row) for row in snakemake.params.rows]
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    write_rounds_table(rows, params.rounds, params.measures, params.data, stem, Setting(**params.setting))
