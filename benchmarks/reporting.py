"""Common parts of the benchmarks' result files: machine, versions and commit, but no names and no paths.

python benchmarks/reporting.py FILE...       # prints those that are complete results of this device and this code
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def about() -> dict[str, Any]:
    """Describe the machine and versions of a benchmark."""
    return {
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
        "code": code(),
        "busy": "other work may have shared the machine: compare ratios, which were taken in turns, not times",
    }


def device(name: str) -> str:
    """Return the device of a result."""
    return torch.cuda.get_device_name() if name == "cuda" else processor()


def settle(device: str) -> None:
    """Wait until the GPU is idle."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(task: Callable[[], Any], device: str = "cpu") -> float:
    """Return the seconds of a task: processor time, or on a GPU the time until it is idle."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    settle(device)
    start = clock()
    task()
    settle(device)
    return clock() - start


def gemm_peak(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Return the operations per second of a large matrix product: the best of three."""
    size = 8192 if device == "cuda" else 2048
    a, b = torch.rand(2, size, size, device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(3))


def processor() -> str:
    """Return the processor's model and its widest vector instructions."""
    names = [line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def cpu_info() -> list[str]:
    """Return the lines of /proc/cpuinfo; an empty list if it does not exist."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def commit() -> str:
    """Return the commit, marked if its code (not its results) has changed, or a note if git names none."""
    if shutil.which("git") is None or not (found := git("describe", "--always", "--abbrev=12", "--exclude=*").stdout):
        return "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", "../src", "*.py").returncode
    return found.strip() + ("-dirty" if changed else "")


def code() -> str:
    """Return a digest of the package and the benchmarks; unlike the commit, it is known without git."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *(here.parent / "src").rglob("*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in this folder's checkout."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)


def write(name: str, result: dict[str, Any], folder: Path = RESULTS, partial: bool = False) -> None:
    """Write a result file; a partial one is replaced when the benchmark goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**about(), **({"partial": True} if partial else {}), **result}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def is_done(path: Path) -> bool:
    """Return whether a file is a complete result of this device and this code."""
    if not path.is_file():
        return False
    result, here = json.loads(path.read_text(encoding="utf-8")), about()
    return "partial" not in result and all(result.get(key) == here[key] for key in ("processor", "gpu", "code"))


def main() -> None:
    """Print the files that need no further run."""
    for name in sys.argv[1:]:
        if is_done(Path(name)):
            print(name)


if __name__ == "__main__":
    main()
