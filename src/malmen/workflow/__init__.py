"""What the Snakefile calls: the paths, parameters and resources of rules, and the `snakemake` command."""
