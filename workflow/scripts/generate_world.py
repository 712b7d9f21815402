"""Write the data sets of the synthetic world."""

from pathlib import Path

from malmen.data.world import WorldSettings, build_fever, build_zsre
from malmen.jobs import job

with job(snakemake.log[0]):
    settings = WorldSettings(**snakemake.params.settings)
    split = dict(snakemake.params.split)
    seed = split.pop("seed")
    build_fever(settings, split, seed, Path(snakemake.output[0]).parent)
    build_zsre(settings, split, seed, Path(snakemake.output[-1]).parent)
