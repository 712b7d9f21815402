"""The workflow's jobs that run a language model: each reads files, calls the editing code, and writes files.

Each rule has a module of the same name, so that it depends on the code of its own job only
(:mod:`malmen.runtime.code_digest`). The jobs do not need Snakemake.
"""
