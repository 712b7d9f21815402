"""Fetch a model from the Hugging Face hub."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.models.hub import fetch_model
from malmen.models.pickled import PickledWeights

with job(snakemake):
    params = snakemake.params
    pickle = PickledWeights(**params.pickle) if params.pickle else None
    fetch_model(params.hub_id, params.revision, Path(snakemake.output[0]), params.sha256, pickle)
