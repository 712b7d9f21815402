"""Write the page of claims about editing in rounds."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.after_malmen import collect_rounds, write_after_malmen
from malmen.figures.setting import Setting
from malmen.figures.summary import About

with job(snakemake):
    params = snakemake.params
    evidence = collect_rounds([Path(file) for file in snakemake.input.rounds], params.models)
    stem = Path(snakemake.output.md).with_suffix("")
    about = About(params.run, params.data, Setting(**params.setting), params.links)
    write_after_malmen(Path(snakemake.input.claims), evidence, about, stem)
