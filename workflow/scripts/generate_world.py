"""Write the data sets of the synthetic world."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.config.world import WorldSettings
from malmen.data.world import build_fever, build_zsre, build_zsre_alternative

with job(snakemake):
    settings = WorldSettings(**snakemake.params.settings)
    split = dict(snakemake.params.split)
    seed = split.pop("seed")
    folders = {Path(file).parent.name: Path(file).parent for file in snakemake.output}
    build_fever(settings, split, seed, folders["fever"])
    build_zsre(settings, split, seed, folders["zsre"])
    build_zsre_alternative(settings, split, seed, folders["zsre_alternative"])
