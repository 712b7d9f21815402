"""The steps of the workflow that run a language model: each reads files, calls the editing code, and writes files.

They need neither Snakemake nor the configuration's machinery, so that they run wherever torch and transformers do. Each
rule depends on the code of its own step alone (:mod:`malmen.runtime.code_digest`).
"""
