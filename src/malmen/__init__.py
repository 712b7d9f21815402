"""Reproducibility package for *Massive Editing for Large Language Models via Meta Learning* (MALMEN, ICLR 2024)."""
