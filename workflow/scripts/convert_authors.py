"""Make a data set from the authors' files."""

from pathlib import Path

from malmen.data.authors import AuthorsFiles, build_fever, build_zsre, build_zsre_alternative
from malmen.jobs import job, logger

BUILDERS = {"fever": build_fever, "zsre": build_zsre, "zsre_alternative": build_zsre_alternative}

with job(snakemake):
    train, evaluation = map(Path, snakemake.input)
    shares = dict(snakemake.params.split)
    seed = shares.pop("seed")
    files = AuthorsFiles(train, evaluation, tuple(snakemake.params.records))
    build = BUILDERS[snakemake.wildcards.dataset]
    logger.info("%s", build(files, Path(snakemake.output[0]).parent, seed, shares))
