"""Write an ablation table."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.costs import CostFiles
from malmen.figures.setting import Setting


def paths(files):
    """Files as paths."""
    return tuple(Path(file) for file in files)


with job(snakemake):
    rows = [
        AblationRow(
            row["variant"],
            row["label"],
            paths(row["metrics"]),
            {m: CostFiles(paths(files["training"]), paths(files["editing"])) for m, files in row["costs"].items()},
        )
        for row in snakemake.params.rows
    ]
    stem = Path(snakemake.output.md).with_suffix("")
    write_ablation(
        rows,
        snakemake.params.n_edits,
        Path(snakemake.input.published[0]) if snakemake.input.published else None,
        snakemake.params.data,
        stem,
        Setting(**snakemake.params.setting),
    )
