"""Draw success during the rounds."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.course import draw_course
from malmen.figures.setting import Setting

with job(snakemake):
    rounds = [Path(file) for file in snakemake.input.rounds]
    stem = Path(snakemake.output.pdf).with_suffix("")
    setting = Setting(**snakemake.params.setting)
    draw_course(rounds, stem, snakemake.params.title, snakemake.params.rounds, setting)
