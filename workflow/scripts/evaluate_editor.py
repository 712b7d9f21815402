"""Measure an editor on groups of edits."""

from dataclasses import asdict
from pathlib import Path

from malmen.config.settings import editor_settings
from malmen.jobs.common import Machine, ModelSpec, runs, write_json
from malmen.jobs.evaluate_editor import Reporting, evaluate_editor, write_metrics
from malmen.jobs.job import job
from malmen.runtime.checkpoint import Saving

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    spec = ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model)
    settings = editor_settings(snakemake.params.settings)
    tried = runs(snakemake.params.n_edits, snakemake.params.seeds)
    reporting = Reporting(Path(snakemake.input.tuples), tried, snakemake.params.max_groups)
    trained = Path(snakemake.input.trained[0]) if settings.trained else None
    covariance = Path(snakemake.input.covariance[0]) if snakemake.input.covariance else None
    machine = Machine(**snakemake.params.machine)
    cache = Path(snakemake.input.cache[0]) if snakemake.input.cache else None
    measured, costs = evaluate_editor(spec, settings, trained, covariance, reporting, machine, saving, cache)
    write_json(Path(snakemake.output.cost), [asdict(cost) for cost in costs])
    write_metrics(Path(snakemake.output.metrics), spec, (snakemake.wildcards.editor, settings.label), measured)

saving.clear()
