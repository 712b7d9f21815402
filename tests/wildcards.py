"""Wildcards as Snakemake gives them to a rule."""

from dataclasses import dataclass


@dataclass
class Wildcards:
    """The wildcards of any rule; those of a test's rule that matter to it are set."""

    model: str = "gpt2"
    editor: str = "malmen"
    n_edits: str = "16"
    seeds: str = "0"
    seed: str = "0"
    split: str = "validation"
    figure: str = "figure4"
    rounds: str = "8x64"
    corpus: str = "fever"
