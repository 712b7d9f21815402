"""Write the ablation table."""

from pathlib import Path

from malmen.figures.ablation import Row, write_ablation
from malmen.jobs import job

with job(snakemake.log[0]):
    rows = [
        Row(row["variant"], row["label"], tuple(Path(file) for file in row["metrics"])) for row in snakemake.params.rows
    ]
    stem = Path(snakemake.output.md).with_suffix("")
    write_ablation(rows, snakemake.params.n_edits, Path(snakemake.input.published), stem)
