"""Write the table of what training and editing cost."""

from pathlib import Path

from malmen.figures.compute import write_compute
from malmen.figures.evidence import priced
from malmen.jobs import job

with job(snakemake.log[0]):
    stem = Path(snakemake.output.md).with_suffix("")
    write_compute(priced(snakemake.params.editors), Path(snakemake.input.published), snakemake.params.device, stem)
