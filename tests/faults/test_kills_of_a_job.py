"""A job of its own, killed or asked to end at random moments, and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trained_apart
from reliability import record

from malmen.runtime.checkpoint import NOTHING_SAVED

JOB = Path(__file__).with_name("trained_apart.py")
SEARCHED = os.pathsep.join([*map(str, (JOB.parent, JOB.parents[1])), os.environ.get("PYTHONPATH", "")])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(JOB), str(folder), str(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": SEARCHED, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_training_ends_with_the_same_bytes(ending: signal.Signals, tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    trained_apart.train(tmp_path, tmp_path / "whole", NOTHING_SAVED)
    rng = random.Random(ending)
    for _ in range(2):
        before = sorted((tmp_path / "state").glob("*"))
        with start(tmp_path) as job:
            while job.poll() is None and sorted((tmp_path / "state").glob("*")) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            job.send_signal(ending)
            _, output = job.communicate()
        assert job.returncode == (-9 if ending == signal.SIGKILL else 1)
        assert ending == signal.SIGKILL or "was ended by SIGTERM" in output
        assert not (tmp_path / "out").exists()
    with start(tmp_path) as job:
        _, output = job.communicate()
    assert job.returncode == 0 and "resuming after" in output
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    record(
        f"{ending.name} to an editor's training",
        "sent to the job's process at a random step; then started again",
        2,
        "identical results; "
        + ("no partial files" if ending == signal.SIGKILL else "saved first, one sentence, exit 1"),
    )
