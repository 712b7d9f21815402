"""GPUs that jobs on one machine claim: plain processes stand for jobs, and names in the environment for GPUs."""

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from malmen.errors import UserError
from malmen.runtime.gpus import VISIBLE, claimed_gpus

JOB = """
import sys
from malmen.runtime.gpus import claimed_gpus
sys.stdin.readline()
with claimed_gpus(int(sys.argv[1])):
    import os
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""
Job = subprocess.Popen[str]
Start = Callable[..., list[Job]]


@pytest.fixture(autouse=True)
def _folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start jobs that claim so many GPUs each, at the same moment."""
    running: list[Job] = []

    def start(*sizes: int, visible: str = "0,1,2,3") -> list[Job]:
        jobs = [
            subprocess.Popen(
                [sys.executable, "-c", JOB, str(n)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, VISIBLE: visible},
            )
            for n in sizes
        ]
        running.extend(jobs)
        for job in jobs:
            say(job)
        return jobs

    yield start
    for job in running:
        job.kill()
        job.communicate()


def say(job: Job) -> None:
    """Let a job go on."""
    assert job.stdin
    job.stdin.write("\n")
    job.stdin.flush()


def gpus(job: Job) -> list[str]:
    """Return what a job claimed, once it has."""
    assert job.stdout
    return job.stdout.readline().strip().split(",")


def test_jobs_at_once_take_different_gpus_and_share_those_that_fewest_use(start: Start) -> None:
    jobs = start(1, 1, 1, 1)
    taken = {gpus(job)[0]: job for job in jobs}
    assert sorted(taken) == ["0", "1", "2", "3"]
    (fifth,) = start(1)
    assert gpus(fifth) == ["0"]
    taken["2"].kill()
    taken["2"].wait()
    (after_kill,) = start(1)
    assert gpus(after_kill) == ["2"]
    say(taken["3"])
    assert taken["3"].wait() == 0
    (after_end,) = start(1)
    assert gpus(after_end) == ["3"]


def test_a_gpu_is_the_less_used_whose_first_job_ended(start: Start) -> None:
    jobs = []
    for expected in ("0", "1", "0", "1", "0"):
        jobs += start(1, visible="0,1")
        assert gpus(jobs[-1]) == [expected]
    for job in (jobs[0], jobs[3]):  # leaves two jobs on GPU 0, and one on GPU 1
        job.kill()
        job.wait()
    (last,) = start(1, visible="0,1")
    assert gpus(last) == ["1"]


def test_jobs_of_several_gpus_take_different_ones(start: Start) -> None:
    found = [gpus(job) for job in start(2, 1, 1)]
    assert [len(one) for one in found] == [2, 1, 1]
    assert Counter(gpu for one in found for gpu in one) == Counter(["0", "1", "2", "3"])
    assert found[0] == sorted(found[0])


def test_a_claim_whose_file_is_gone_ends_without_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    with claimed_gpus(1):
        (claim,) = tmp_path.glob("*/0 *")
        claim.unlink()  # as systemd does after ten days
    with claimed_gpus(1):
        assert list(tmp_path.glob("*/0 *"))
    assert not list(tmp_path.glob("*/0 *"))


def test_where_nothing_can_be_locked_a_file_is_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setenv(VISIBLE, "0,1")
    with claimed_gpus(1) as one:
        monkeypatch.setenv(VISIBLE, "0,1")
        with claimed_gpus(1) as other:
            assert (one, other) == (["0"], ["1"])
    with claimed_gpus(1) as later:
        assert later == ["0"]


def test_gpus_may_have_uuids(start: Start) -> None:
    names = ["GPU-0f1e", "MIG-GPU-0f1e/1/0"]
    found = [gpus(job) for job in start(1, 1, visible=", ".join(names))]
    assert sorted(found) == [[name] for name in names]


def test_a_job_that_asks_for_more_than_it_sees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,5")
    sentence = r"^The job asks for 3 GPUs, but sees 2 \(4, 5\); lower the model's gpus, or let CUDA_VISIBLE_DEVICES"
    with pytest.raises(UserError, match=sentence), claimed_gpus(3):
        pass
    with claimed_gpus(2) as found:
        assert found == ["4", "5"]


@pytest.mark.parametrize(("n", "visible"), [(0, "0,1"), (1, ""), (1, "-1")])
def test_where_there_is_nothing_to_claim_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, visible: str
) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    with claimed_gpus(n) as found:
        assert found == [] and os.environ[VISIBLE] == visible and not list(tmp_path.iterdir())


def test_without_nvidia_smi_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with claimed_gpus(1) as found:
        assert found == [] and VISIBLE not in os.environ
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 0\necho 1\n", encoding="utf-8")
    smi.chmod(0o755)
    with claimed_gpus(1) as found:
        assert found == ["0"] and os.environ[VISIBLE] == "0"
    assert VISIBLE not in os.environ
