"""Measure an editor on groups of edits."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.on_ranks import on_ranks
from malmen.results.run import runs
from malmen.runtime.checkpoint import Saving
from malmen.runtime.ranks import ranks

on_ranks(snakemake)

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    metrics, costs, answers = evaluate_editor(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        EditorSpec.of(snakemake),
        Path(snakemake.input.tuples),
        runs(snakemake.params.n_edits, snakemake.params.seeds),
        dict(zip(snakemake.params.n_edits, snakemake.params.max_groups, strict=True)),
        Machine(**snakemake.params.machine),
        saving,
        Path(snakemake.input.cache[0]) if snakemake.input.cache else None,
        snakemake.params.n_answers,
    )
    if ranks().first:
        costs.write(Path(snakemake.output.cost))
        answers.write(Path(snakemake.output.answers))
        metrics.write(Path(snakemake.output.metrics))

saving.clear()
