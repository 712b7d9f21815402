"""Fetch a model from the Hugging Face hub."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.models.hub import fetch_model, pinned

with job(snakemake):
    hub_id = snakemake.params.hub_id
    revision = pinned(hub_id, snakemake.params.revision, snakemake.params.key)
    fetch_model(hub_id, revision, Path(snakemake.output[0]), snakemake.params.sha256)
