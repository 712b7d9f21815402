"""The explorer: one page without network access on which a reader looks through all curves and answers of a run."""
