"""Make a data set from files that hold finished tuples: the authors', or MEND's."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.data import authors, mend

BUILDERS = {
    ("authors", "fever"): authors.build_fever,
    ("authors", "zsre"): authors.build_zsre,
    ("authors", "zsre_alternative"): authors.build_zsre_alternative,
    ("mend", "zsre"): mend.build_zsre,
    ("mend", "zsre_alternative"): mend.build_zsre_alternative,
}

with job(snakemake):
    train, evaluation = map(Path, snakemake.input)
    shares = dict(snakemake.params.split)
    seed = shares.pop("seed")
    files = authors.TupleFiles(train, evaluation, tuple(snakemake.params.records), snakemake.params.shared_unrelated)
    build = BUILDERS[snakemake.params.source, snakemake.wildcards.dataset]
    logger.info("%s", build(files, Path(snakemake.output[0]).parent, seed, shares))
