"""Draw the mean residual against the number of edits."""

from pathlib import Path

from malmen.figures.residual import draw_residual
from malmen.jobs import job

with job(snakemake.log[0]):
    metrics = [Path(file) for file in snakemake.input.metrics]
    draw_residual(metrics, Path(snakemake.output.pdf).with_suffix(""), snakemake.params.title)
