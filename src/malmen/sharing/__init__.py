"""Sharing results: publication with DVC, and export as an RO-Crate."""
