"""Fetch a model from the Hugging Face hub."""

from pathlib import Path

from malmen.jobs import job
from malmen.models.hub import fetch_model

with job(snakemake.log[0]):
    fetch_model(snakemake.params.hub_id, snakemake.params.revision, Path(snakemake.output[0]))
