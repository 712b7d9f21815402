"""Write the page on which a reader looks through all curves and answers of a run."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.explorer.page import Explored, write_explorer

with job(snakemake):
    metrics, answers = ([Path(file) for file in files] for files in (snakemake.input.metrics, snakemake.input.answers))
    write_explorer(Explored(**snakemake.params.explored, metrics=metrics, answers=answers), Path(snakemake.output.html))
