"""Draw a scaling curve."""

from pathlib import Path

from malmen.figures.scaling import draw_scaling
from malmen.jobs import job

with job(snakemake.log[0]):
    metrics = [Path(file) for file in snakemake.input.metrics]
    draw_scaling(metrics, Path(snakemake.output.pdf).with_suffix(""), snakemake.params.title)
