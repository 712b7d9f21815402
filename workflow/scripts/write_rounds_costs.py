"""Write the table of what editors cost in rounds."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.rounds_costs import PricedRounds, write_rounds_costs
from malmen.figures.setting import Setting

with job(snakemake):
    priced = [PricedRounds.of(editor) for editor in snakemake.params.editors]
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    write_rounds_costs(priced, params.rounds, params.model, params.data, stem, Setting(**params.setting))
