"""Hand data sets and checkpoints to DVC."""

from pathlib import Path

from malmen.jobs.job import logged
from malmen.sharing.publish import publish

with logged(Path(snakemake.log[0])):
    publish(Path.cwd(), snakemake.params.run, snakemake.params.quoting)
