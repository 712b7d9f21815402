"""Draw peak memory against the number of edits."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.memory_figure import draw_memory
from malmen.figures.setting import Setting

with job(snakemake):
    stem = Path(snakemake.output.pdf).with_suffix("")
    setting = Setting(**snakemake.params.setting)
    draw_memory(Path(snakemake.input.memory), stem, snakemake.params.title, snakemake.params.labels, setting)
