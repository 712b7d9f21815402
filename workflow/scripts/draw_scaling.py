"""Draw a scaling curve."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.scaling import draw_scaling
from malmen.figures.setting import Setting

with job(snakemake):
    metrics = [Path(file) for file in snakemake.input.metrics]
    stem = Path(snakemake.output.pdf).with_suffix("")
    setting = Setting(**snakemake.params.setting)
    draw_scaling(metrics, stem, snakemake.params.title, snakemake.params.n_edits, setting)
