"""What a reviewer reads: the audit, and the lineage of a number."""
