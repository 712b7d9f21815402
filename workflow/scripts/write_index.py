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
    # A run without editing in rounds has no page on it.
    later = list(getattr(snakemake.input, "later", []))
    results = Results(
        params.run,
        params.setting["note"],
        params.data,
        figures,
        tables,
        summary,
        claims,
        params.explorer,
        later=Path(later[0]).with_suffix("") if later else None,
        later_claims=Path(snakemake.input.later_claims[0]) if later else None,
    )
    write_index(results, Path(snakemake.output[0]))
