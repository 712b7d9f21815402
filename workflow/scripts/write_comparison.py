"""Write the table of success and drawdown by sequence."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.comparison import write_comparison
from malmen.figures.setting import Setting

with job(snakemake):
    metrics = [Path(file) for file in snakemake.input.metrics]
    stem = Path(snakemake.output.md).with_suffix("")
    published = Path(snakemake.input.published[0]) if snakemake.input.published else None
    params = snakemake.params
    setting = Setting(**params.setting)
    write_comparison(metrics, params.editors, params.n_edits, published, params.data, stem, setting)
