"""Make a data set from upstream files."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.data.realtext import (
    RawFiles,
    build_counterfact,
    build_fever,
    build_wikibigedit,
    build_zsre,
    build_zsre_alternative,
)

with job(snakemake):
    raw = RawFiles([Path(file) for file in snakemake.input.edits], [Path(file) for file in snakemake.input.unrelated])
    folder = Path(snakemake.output[0]).parent
    seed, shares = snakemake.params.seed, dict(snakemake.params.split)
    split_seed = shares.pop("seed")
    match snakemake.wildcards.dataset:
        case "fever":
            counts = build_fever(raw, folder, seed, shares, split_seed, snakemake.params.n_equivalent)
        case "zsre":
            counts = build_zsre(raw, folder, seed, shares, split_seed)
        case "zsre_alternative":
            counts = build_zsre_alternative(raw.edits, folder, seed, shares, split_seed)
        case "counterfact":
            counts = build_counterfact(raw.edits, folder, shares, split_seed)
        case "wikibigedit":
            counts = build_wikibigedit(raw.edits, folder, shares, split_seed)
    logger.info("%s", counts)
