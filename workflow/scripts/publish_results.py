"""Hand data sets and checkpoints to DVC."""

from pathlib import Path

from malmen.jobs import logged
from malmen.provenance.sharing import publish

with logged(Path(snakemake.log[0])):
    publish(Path.cwd(), snakemake.params.profile)
