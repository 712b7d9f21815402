"""Draw success against the number of rounds."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.rounds import draw_rounds
from malmen.figures.setting import Setting

with job(snakemake):
    rounds = [Path(file) for file in snakemake.input.rounds]
    stem = Path(snakemake.output.pdf).with_suffix("")
    setting = Setting(**snakemake.params.setting)
    draw_rounds(rounds, stem, snakemake.params.title, snakemake.params.total, setting)
