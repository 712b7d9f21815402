"""One schema for each file of results, used by the job that writes the file and by all that read it.

Each kind of file has a module of its own, so that a change to one schema runs no other jobs again
(:mod:`malmen.runtime.code_digest`).
"""
