"""Write the table of how far training moved a hyper-network."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.moved_table import TrainedEditor, write_moved
from malmen.figures.setting import Setting

with job(snakemake):
    params = snakemake.params
    editors = [TrainedEditor.of(editor, params.n_edits) for editor in params.editors]
    stem = Path(snakemake.output.md).with_suffix("")
    write_moved(editors, params.n_edits, stem, Setting(**params.setting), params.data)
