"""Measure an editor on groups of edits."""

from dataclasses import asdict
from pathlib import Path

from malmen.jobs import job
from malmen.settings import editor_settings
from malmen.steps.common import Machine, Subject, write_json
from malmen.steps.evaluation import Reporting, evaluate_editor, write_metrics

with job(snakemake.log[0]):
    subject = Subject(directory=Path(snakemake.input.model), **snakemake.params.subject)
    settings = editor_settings(snakemake.params.settings)
    seed = int(snakemake.wildcards.seed)
    sizes = [int(m) for m in snakemake.wildcards.sizes.split("-")]
    reporting = Reporting(Path(snakemake.input.tuples), sizes, snakemake.params.max_groups, seed)
    trained = [Path(folder) for folder in snakemake.params.trained]
    statistics = Path(snakemake.input.statistics[0]) if snakemake.input.statistics else None
    machine = Machine(**snakemake.params.machine)
    runs, costs = evaluate_editor(subject, settings, trained, statistics, reporting, machine)
    write_json(Path(snakemake.output.cost), [asdict(cost) for cost in costs])
    write_metrics(Path(snakemake.output.metrics), subject, (snakemake.wildcards.editor, settings.label), seed, runs)
