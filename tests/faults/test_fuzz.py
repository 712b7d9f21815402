"""A short coverage-guided fuzz of the parsers, where there is a build of the package ``atheris``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reliability import record
from test_kills_of_a_job import SEARCHED

SECONDS = 60


@pytest.mark.faults
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no build of atheris for this machine")
def test_fuzz(tmp_path: Path) -> None:
    script = Path(__file__).with_name("fuzz_parsers.py")
    run = subprocess.run(
        [sys.executable, str(script), f"-max_total_time={SECONDS}", "-print_final_stats=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SEARCHED},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    executed = next(line.split()[-1] for line in run.stderr.splitlines() if "number_of_executed_units" in line)
    happened = "each was read, or refused in one sentence"
    record("inputs by coverage (libFuzzer)", f"all parsers of text, for {SECONDS} s", int(executed), happened)
