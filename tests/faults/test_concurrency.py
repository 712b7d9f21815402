"""Several processes that write to one place."""

import json
import os
import subprocess
import sys
from pathlib import Path

from reliability import record
from slow_server import CONTENT, SHA256, slow_server

FETCH = """
import sys
from pathlib import Path
from malmen.config.upstream_files import UpstreamFile
from malmen.data.download import download
download(UpstreamFile("file", ("https://host/file",), sys.argv[1], "CC0"), Path(sys.argv[2]), sys.argv[3])
"""
WRITE = """
import sys
from pathlib import Path
from malmen.runtime.files import write_text
for i in range(300):
    write_text(Path(sys.argv[1]), sys.argv[2] * 50_000)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=dict(os.environ), stderr=subprocess.PIPE, text=True
    )


def test_two_workflows_fetch_the_same_file_into_a_shared_folder(tmp_path: Path) -> None:
    with slow_server() as root:
        jobs = [start(FETCH, SHA256, str(tmp_path / "raw" / "file"), root) for _ in range(3)]
        outputs = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], outputs
    assert (tmp_path / "raw" / "file").read_bytes() == CONTENT
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [".file.lock", "file"]
    record("two clones sharing downloads", "three processes fetch one file into one folder", 1, "one whole file")


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    jobs = [start(WRITE, str(path), letter) for letter in "ab"]
    seen = set()
    while any(job.poll() is None for job in jobs):
        if path.exists():
            seen.add(path.read_text())
    assert [job.communicate()[1] for job in jobs] == ["", ""]
    assert seen <= {"a" * 50_000, "b" * 50_000} and seen
    assert json.dumps([other.name for other in tmp_path.iterdir()]) == '["file"]'
    record(
        "two writers of one file",
        "300 times each, with a reader beside them",
        600,
        "the reader never saw a partial file",
    )
