"""Train editors on several ranks, of which any may be killed: ``python trained_on_ranks.py FOLDER OUT RANKS NODES``."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from trained_apart import train

from malmen.jobs.job import job_frame
from malmen.errors import UserError
from malmen.jobs.on_ranks import on_ranks
from malmen.runtime.checkpoint import Checkpoint, Saving
from malmen.runtime.noted import NOTES
from malmen.runtime.ranks import ranks

FAILING = "FAILING"
"""The environment variable that names the rank that fails, alone."""


def slowly(step: float) -> None:
    """Let each step last, so that a test can send a signal during the work."""
    write = Checkpoint.write

    def slow(self: Checkpoint, state: object) -> None:
        write(self, state)  # type: ignore[arg-type]
        time.sleep(step)

    Checkpoint.write = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    inputs, target = map(Path, sys.argv[1:3])
    machine = {"device": "cpu", "threads": 1, "ranks": int(sys.argv[3])}
    snakemake = SimpleNamespace(
        params={"machine": machine}, log=[str(inputs / "log.txt")], resources={"nodes": int(sys.argv[4])}
    )
    on_ranks(snakemake)
    with job_frame(inputs / "log.txt"):
        slowly(0.05)
        if str(ranks().rank) == os.environ.get(FAILING):
            raise UserError("This rank alone fails.", "Mend it.")
        train(inputs, target, Saving(inputs / "state", every_seconds=0))
        if ranks().first:
            (inputs / "ranks.txt").write_text(str(NOTES.in_turn(ranks().size)), encoding="utf-8")
