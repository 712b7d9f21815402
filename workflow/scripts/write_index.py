"""Write the page with all results of a run."""

from pathlib import Path

from malmen.jobs.job import job
from malmen.figures.index import Item, Results, write_index

with job(snakemake):
    params = snakemake.params
    figures, tables = (
        [Item(Path(stem), title, stem in params.quoting) for stem, title in params.results[kind].items()]
        for kind in ("figures", "tables")
    )
    summary = Path(snakemake.input.summary[0]).with_suffix("")
    claims = Path(snakemake.input.claims)
    results = Results(
        params.run, params.setting["note"], params.data, figures, tables, summary, claims, params.explorer
    )
    write_index(results, Path(snakemake.output[0]))
