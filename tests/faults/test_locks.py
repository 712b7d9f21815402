"""Two workflows in one folder, and one that was killed: nothing is mixed up, and nothing is to be unlocked."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
from reliability import record

SCRIPT = """
import os, time
from pathlib import Path
from malmen.jobs.job import logged

with logged(Path(snakemake.log[0])):
    first = not Path("started").exists()
    Path("started.part").write_text(str(os.getpid()))
    Path("started.part").rename("started")
    time.sleep(60 * first)
    Path(snakemake.output[0]).write_text("made")
"""


def command(folder: Path) -> subprocess.Popen[str]:
    """Start the project's command, as installed from this checkout."""
    code = "from malmen.workflow.command import main; main()"
    script = folder / "snakemake"  # by which name processes know it
    script.write_text(code)
    arguments = [sys.executable, str(script), "--cores", "1"]
    return subprocess.Popen(arguments, cwd=folder, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_takes_its_jobs_along_and_leaves_nothing_to_unlock(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text('rule all:\n    output: "made"\n    log: "log"\n    script: "make.py"\n')
    (tmp_path / "make.py").write_text(SCRIPT)
    with command(tmp_path) as first:
        while not (tmp_path / "started").exists():
            assert first.poll() is None
            time.sleep(0.1)
        job = psutil.Process(int((tmp_path / "started").read_text()))
        with command(tmp_path) as second:
            output, _ = second.communicate()
        assert second.returncode == 1
        assert f"Another snakemake is at work here ({socket.gethostname()} process {first.pid})." in output
        assert "Directory cannot be locked" in output
        first.kill()
    assert list((tmp_path / ".snakemake" / "locks").iterdir())
    assert job.wait(timeout=20) is None
    assert "ended by SIGTERM" in (tmp_path / "log").read_text()
    assert not (tmp_path / "made").exists()
    with command(tmp_path) as third:
        output, _ = third.communicate()
    assert third.returncode == 0, output
    assert "An earlier run here was killed; its locks are removed" in output
    assert (tmp_path / "made").read_text() == "made"
    assert not list((tmp_path / ".snakemake" / "runs").iterdir())
    record(
        "two `snakemake` in one clone",
        "a second one while the first works",
        1,
        "the second one says which process is running, and changes nothing",
    )
    happened = "its job ended by itself; the same command removed the locks and did the work again"
    record("`kill -9` of Snakemake alone", "while a job of it runs", 1, happened)
