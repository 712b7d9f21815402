"""Write the summary of the paper's claims."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.compute import PricedEditor
from malmen.figures.setting import Setting
from malmen.figures.summary import About, collect, write_summary

with job(snakemake):
    editors = [PricedEditor.of(editor) for editor in snakemake.params.editors]
    metrics = [Path(file) for file in snakemake.input.metrics]
    memory = [Path(file) for file in snakemake.input.memory]
    evidence = collect(metrics, editors, memory, snakemake.params.variants)
    stem = Path(snakemake.output.md).with_suffix("")
    params = snakemake.params
    about = About(params.run, params.data, Setting(**params.setting), params.links)
    write_summary(Path(snakemake.input.claims), evidence, about, stem)
