"""The frame of a job: the garbage collector pauses while a job's process imports, and works while the job does."""

import subprocess
import sys
from pathlib import Path

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
