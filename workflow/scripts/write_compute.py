"""Write the table of what training and editing cost."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.compute import PricedEditor, write_compute
from malmen.figures.setting import Setting

with job(snakemake):
    stem = Path(snakemake.output.md).with_suffix("")
    editors = [PricedEditor.of(editor) for editor in snakemake.params.editors]
    setting = Setting(**snakemake.params.setting)
    write_compute(editors, Path(snakemake.input.published), snakemake.params.data, stem, setting)
