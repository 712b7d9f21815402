"""Fetch one upstream file and check it."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.data.download import fetch, mirror_location

with job(snakemake):
    mirror = mirror_location(snakemake.config.get("data", {}).get("mirror"))
    fetch(snakemake.wildcards.name, Path(snakemake.output[0]), mirror)
