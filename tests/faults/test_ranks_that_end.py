"""Jobs on several ranks: whatever ends one ends all, with one sentence and no orphan, and any number may resume."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import trained_apart
from reliability import record
from test_kills_of_a_job import SEARCHED
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from malmen.jobs.agent import Group, reason
from malmen.results.training import TrainingFile
from malmen.runtime.checkpoint import NOTHING_SAVED

JOB = Path(__file__).with_name("trained_on_ranks.py")
RUNS = ("m8_seed0", "m20_seed1")


def start(folder: Path, ranks: int, nodes: int = 1, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(JOB), str(folder), str(folder / "out"), str(ranks), str(nodes)]
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": SEARCHED, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ranks_at_work(job: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """Return a job's ranks, once they have saved a state."""
    before = [path.stat().st_mtime_ns for path in (folder / "state").glob("*.safetensors")]
    while [path.stat().st_mtime_ns for path in (folder / "state").glob("*.safetensors")] == before:
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    return psutil.Process(job.pid).children()


def ended(job: subprocess.Popen[str], ranks: list[psutil.Process], seconds: float = 15) -> list[str]:
    """Return the sentences on the terminal, once a job and all of its ranks have ended within some seconds."""
    _, output = job.communicate(timeout=seconds)
    _, alive = psutil.wait_procs(ranks, timeout=3)
    assert not alive
    progress = ("resuming after", "done in", "share this job")
    return [line.strip() for line in output.splitlines() if not any(told in line for told in progress)]


def rank_of(process: psutil.Process) -> str:
    return process.environ()["RANK"]


def test_a_training_goes_on_whatever_ends_its_ranks(tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    trained_apart.train(tmp_path, tmp_path / "whole", NOTHING_SAVED)

    job = start(tmp_path, ranks=2)
    ranks = ranks_at_work(job, tmp_path)
    second = next(rank for rank in ranks if rank_of(rank) == "1")
    second.kill()
    killed = "Rank 1 of 2 of this job was ended by SIGKILL (out of memory ends processes so)"
    assert ended(job, ranks) == [f"Error: {killed}; run the same command again to resume."] and job.returncode == 1

    job = start(tmp_path, ranks=3)
    ranks = ranks_at_work(job, tmp_path)
    job.send_signal(signal.SIGTERM)
    ranks[0].send_signal(signal.SIGTERM)  # as a scheduler that tells all processes
    (said,) = ended(job, ranks)
    assert "was ended by SIGTERM (its state was saved); run the same command again to resume." in said
    assert said.startswith("Error: MALMEN on Tiny, m = ") and job.returncode == 1

    job = start(tmp_path, ranks=2)
    ranks = ranks_at_work(job, tmp_path)
    job.kill()
    ended(job, ranks)

    job = start(tmp_path, ranks=1)
    _, output = job.communicate()
    assert job.returncode == 0 and "resuming after" in output
    assert (tmp_path / "ranks.txt").read_text(encoding="utf-8") == "[2, 3, 2, 1]"
    for run in RUNS:
        whole, parts = (TrainingFile.read(tmp_path / out / run / "training.json") for out in ("whole", "out"))
        for one, other in zip(whole.losses, parts.losses, strict=True):
            assert vars(one) == pytest.approx(vars(other), rel=1e-5)
    record(
        "SIGKILL and SIGTERM to a training on several ranks",
        "sent to a rank, then to all, then to the launcher; each time resumed by another number of ranks",
        3,
        "all ranks end within seconds; one sentence; the same losses to 1e-5",
    )


def test_an_error_of_one_rank_is_the_only_sentence(tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    job = start(tmp_path, ranks=2, FAILING="1", TMPDIR=str(tmp_path))
    _, output = job.communicate(timeout=60)
    assert output == "  2 processes share this job\n  Error: This rank alone fails.\nMend it.\n"
    assert job.returncode == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*torch*")) and not list(tmp_path.glob("*rank*"))


SRUN = """\
#!/bin/bash
n=${1#--nodes=}
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < n; i++)); do "$@" & done
trap 'kill -TERM $(jobs -p)' TERM
wait; wait; wait
"""
"""A stand-in that starts the agents of all nodes on this machine."""


def test_agents_of_two_nodes_meet(tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    (tmp_path / "srun").write_text(SRUN, encoding="utf-8")
    (tmp_path / "srun").chmod(0o755)
    job = start(tmp_path, ranks=2, nodes=2, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ranks_at_work(job, tmp_path)
    job.send_signal(signal.SIGINT)
    lines = ended(job, psutil.Process(job.pid).children(recursive=True))
    assert len(lines) == 1, lines
    (said,) = lines
    assert "was ended by SIGTERM (its state was saved)" in said and job.returncode == 1


def failure(folder: Path, rank: int, status: int, said: str = "", moment: int = 0) -> ProcessFailure:
    """Return the failure of a rank as torch's agent describes it."""
    file = folder / f"{rank}.json"
    if said:
        file.write_text(f'{{"message": "{said}", "timestamp": {moment}}}', encoding="utf-8")
    return ProcessFailure(rank, 1, status, str(file))


@pytest.mark.parametrize(
    ("failures", "signals", "expected"),
    [
        ([(0, 4), (1, 1, "Later.", 9), (2, 1, "Sooner.", 5)], [], "Sooner."),
        ([(0, 3, "The job was ended by SIGTERM.", 1), (1, -9)], [], "Rank 1 of 3 of this job was ended by SIGKILL"),
        ([(0, -15), (1, 3, "Saved.", 1)], ["SIGTERM"], "Saved."),
        ([(0, -15)], ["SIGINT"], "The job was ended by SIGINT"),
        ([(0, 4), (1, -15)], [], "The ranks of this job lost each other; log may say why."),
        ([(0, 4), (2, 7)], [], "Rank 2 of 3 of this job ended with status 7"),
        ([(0, 4), (1, 4)], [], "The ranks of this job lost each other"),
    ],
)
def test_the_reason_is_what_happened_first(
    tmp_path: Path, failures: list[tuple[int, int, str, int]], signals: list[str], expected: str
) -> None:
    found = {one[0]: failure(tmp_path, *one) for one in failures}
    assert reason(found, Group([], "log", 3, 1), signals).sentence.startswith(expected)
