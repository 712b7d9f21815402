"""Make edit tuples of originals and their rephrasings, and pair them with unrelated ones."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.data.rebuild import Ingredients, pair_tuples
from malmen.data.reports import read_report, total


def paths(files):
    """The files as paths."""
    return [Path(file) for file in files or ()]


with job(snakemake):
    alternatives = paths(snakemake.input.get("alternatives"))
    ingredients = Ingredients(
        originals=Path(snakemake.input.originals[0]),
        rephrasings=paths(snakemake.input.get("filtered") or snakemake.input.translated),
        alternatives=alternatives[0] if alternatives else None,
        unrelated=paths(snakemake.input.unrelated),
    )
    steps = [total([read_report(file) for file in paths(files)]) for files in snakemake.params.reports.values()]
    shares = dict(snakemake.params.split)
    seed = shares.pop("seed")
    folder = Path(snakemake.output[0]).parent
    report = pair_tuples(snakemake.wildcards.dataset, ingredients, shares, seed, steps, folder)
    logger.info("%s", report)
