"""A full disk, a limit of file sizes, few file handles: one sentence, no partial files, and the job can resume."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trained_apart
from reliability import record
from safetensors import SafetensorError
from test_kills_of_a_job import JOB, SEARCHED, contents

from malmen.errors import trouble
from malmen.runtime.checkpoint import NOTHING_SAVED
from malmen.runtime.files import replacing, replacing_directory


def run(folder: Path, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOB), str(folder), str(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": SEARCHED, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=limit)


def assert_one_sentence(job: subprocess.CompletedProcess[str], part: str) -> None:
    errors = [line for line in job.stderr.splitlines() if "Error" in line]
    assert job.returncode == 1 and len(errors) == 1, job.stderr
    assert part in errors[0] and errors[0].endswith("and run the same command again.")
    assert "Traceback" not in job.stderr


@pytest.mark.faults
def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    trained_apart.train(tmp_path, tmp_path / "whole", NOTHING_SAVED)
    job = run(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    assert_one_sentence(job, "m8_seed0.safetensors: the file is larger than this process may write; raise the limit")
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob(".*.part"))
    job = run(tmp_path)
    assert job.returncode == 0, job.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    record("a limit of file sizes", "RLIMIT_FSIZE while a state is saved", 1, "one sentence; no partial files; resumes")


@pytest.mark.faults
def test_few_file_handles_suffice(tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    job = run(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    assert job.returncode == 0, job.stderr
    record("few file handles", "RLIMIT_NOFILE of 64 for an editor's training", 1, "trains as usual")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB in memory; skips where it cannot be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs more rights")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)  # Weights may still be mapped into memory.


@pytest.mark.faults
@pytest.mark.parametrize("left", [0, 20_000, 60_000, 150_000])
def test_a_full_disk(small_disk: Path, left: int, tmp_path: Path) -> None:
    trained_apart.prepare(small_disk)
    trained_apart.train(small_disk, tmp_path / "whole", NOTHING_SAVED)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    filler.write_bytes(b"\0" * (free - left))
    job = run(small_disk)
    assert_one_sentence(job, "no space is left on the device; make space")
    assert not (small_disk / "out").exists() and not list(small_disk.rglob(".*.part"))
    filler.unlink()
    job = run(small_disk)
    assert job.returncode == 0, job.stderr
    assert contents(small_disk / "out") == contents(tmp_path / "whole")
    record(
        "a full disk",
        "a tmpfs of 4 MB with 0 to 150 kB left",
        1,
        "one sentence; no partial files; resumes when there is space",
    )


ERRORS = [
    (
        OSError(errno.ENOSPC, "No space left on device", "a.txt"),
        "a.txt: no space is left on the device; make space, and",
    ),
    (PermissionError(errno.EACCES, "Permission denied", "b"), "b: permission is denied; change the permissions, and"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "A file: no space is left on the device;"),
    (Exception("File too large (os error 27)"), "A file: the file is larger than this process may write;"),
]


@pytest.mark.parametrize(("error", "sentence"), ERRORS)
def test_what_the_system_refuses_is_one_sentence(error: Exception, sentence: str) -> None:
    found = trouble(error)
    assert found and found.startswith(sentence) and found.endswith("and run the same command again.")


def test_other_errors_are_no_trouble_of_the_system() -> None:
    assert trouble(ValueError("a defect")) is None
    assert trouble(KeyError("(os error x)")) is None


def test_the_file_is_named_where_the_error_does_not(tmp_path: Path) -> None:
    for writer in (replacing, replacing_directory):
        with pytest.raises(OSError) as raised, writer(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert str(trouble(raised.value)).startswith(f"{tmp_path / 'out'}: no space")
