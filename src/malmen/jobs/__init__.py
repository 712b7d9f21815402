"""The jobs of the workflow that run a language model: each reads files, calls the editing code, and writes files.

There is one module for each rule, with the rule's name; a rule depends on the code of its own job alone
(:mod:`malmen.runtime.code_digest`). The jobs need no Snakemake.
"""
