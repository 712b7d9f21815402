"""Edit in rounds, and measure all edits after some of them."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.config.rounds import Rounds
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.edit_in_rounds import Measuring, edit_in_rounds
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.on_ranks import on_ranks
from malmen.runtime.checkpoint import Saving
from malmen.runtime.ranks import ranks

on_ranks(snakemake)

saving = Saving.configured(snakemake.params.state, snakemake.config)

with job(snakemake):
    rounds, costs = edit_in_rounds(
        ModelSpec(directory=Path(snakemake.input.model), **snakemake.params.model),
        EditorSpec.of(snakemake),
        Path(snakemake.input.tuples),
        [Rounds(**one) for one in snakemake.params.rounds],
        snakemake.params.seeds,
        Measuring(Path(snakemake.input.text), snakemake.params.n_texts, snakemake.params.n_decoded),
        Machine(**snakemake.params.machine),
        saving,
        Path(snakemake.input.train[0]) if snakemake.input.train else None,
    )
    if ranks().first:
        costs.write(Path(snakemake.output.cost))
        rounds.write(Path(snakemake.output.rounds))

saving.clear()
