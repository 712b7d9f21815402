"""Write the table of later papers' numbers below ours."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.published_rounds import write_published
from malmen.figures.setting import Setting

with job(snakemake):
    rounds = [Path(file) for file in snakemake.input.rounds]
    published = Path(snakemake.input.published[0])
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    write_published(rounds, params.editors, params.rounds, published, params.data, stem, Setting(**params.setting))
