"""Make a data set from the user's own files."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.config.data import OwnFiles
from malmen.data.own_data import build_own

with job(snakemake):
    files = OwnFiles(
        facts=snakemake.input.facts,
        unrelated=snakemake.input.get("unrelated") or None,
        **snakemake.params.reading,
    )
    shares = dict(snakemake.params.split)
    split_seed = shares.pop("seed")
    folder = Path(snakemake.output[0]).parent
    counts = build_own(files, folder, shares, split_seed, snakemake.params.shared_unrelated)
    logger.info("%s", counts)
