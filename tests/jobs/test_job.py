"""The frame of a job: it has the GPUs it needs, and the garbage collector pauses while its process imports."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from malmen.jobs.job import own_gpus
from malmen.errors import UserError

SCRIPT = """
import gc
from pathlib import Path
{job}
from malmen.jobs.job import logged
importing = gc.isenabled()
with logged(Path("job.log")):
    print(importing, gc.isenabled(), gc.get_freeze_count() > 0)
"""


def collector(folder: Path, job: str) -> str:
    """Return whether the collector works during imports and during the work, and whether it leaves imports alone."""
    command = [sys.executable, "-c", SCRIPT.format(job=job)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_jobs_process_collects_garbage_only_from_its_work_on(tmp_path: Path) -> None:
    assert collector(tmp_path, "snakemake = object()") == "False True True"


def test_other_processes_keep_the_collector_as_it_is(tmp_path: Path) -> None:
    assert collector(tmp_path, "") == "True True False"


def test_a_job_with_fewer_gpus_than_ranks_is_refused() -> None:
    machine = {"device": "cuda", "threads": 1, "ranks": 4}
    task = SimpleNamespace(params={"machine": machine}, resources={"gpu": 1})
    refused = pytest.raises(UserError, match="needs 4 GPUs, but got 1; run snakemake with --resources gpu=4")
    with refused, own_gpus(task):
        pass
