"""Hand data sets and checkpoints to DVC."""

from pathlib import Path

from malmen.jobs import job
from malmen.provenance.sharing import publish

with job(snakemake.log[0]):
    publish(Path.cwd(), snakemake.params.profile)
