"""List the answers that one group of edits left or made wrong."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.list_failures import list_failures
from malmen.results.run import Run

with job(snakemake):
    failures = list_failures(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        EditorSpec.of(snakemake),
        Path(snakemake.input.tuples),
        Run(int(snakemake.wildcards.n_edits), int(snakemake.wildcards.seed)),
        Machine(**snakemake.params.machine),
    )
    failures.write(Path(snakemake.output[0]))
