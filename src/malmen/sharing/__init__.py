"""Handing results on: publishing with DVC, and RO-Crate."""
