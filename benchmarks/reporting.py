"""What the benchmarks' result files have in common: the machine, the versions, the commit. No names and no paths."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def about() -> dict[str, Any]:
    """Return on what a benchmark ran."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
        "busy": "other work may have shared the machine: compare ratios, which were taken in turns, not times",
    }


def gemm_peak(size: int = 2048) -> float:
    """Return how many operations a second a large product of float32 matrices reaches: the best of three."""
    a, b = torch.rand(2, size, size)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def processor() -> str:
    """Return the processor's model and its widest vectors."""
    names = [line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def cpu_info() -> list[str]:
    """Return the lines of the kernel's description of the processor; none where there is no such file."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def commit() -> str:
    """Return the commit that ran, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write(name: str, result: dict[str, Any]) -> None:
    """Write a result file."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**about(), **result}, indent=1) + "\n", encoding="utf-8")
