"""For reviewers: the audit, and the lineage of a number."""
