"""Draw peak memory against the number of edits."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.memory_figure import draw_memory

with job(snakemake):
    stem = Path(snakemake.output.pdf).with_suffix("")
    draw_memory(Path(snakemake.input.memory), stem, snakemake.params.title, snakemake.params.labels)
