"""Repeating a sample of recorded jobs, and comparing their outputs with the recorded ones."""

import csv
import json
import logging
import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from malmen.audit.replay import prepare, replay
from malmen.audit.trail import DELETABLE, Link, Trail
from malmen.errors import UserError
from malmen.provenance.environment import environment, environment_of, has_gpu, same_numbers
from malmen.provenance.records import Artefact, Record
from malmen.runtime.text import counted

logger = logging.getLogger("malmen")

SHARE_TOLERANCE = 0.02
"""Absolute tolerance for numbers in JSON and CSV (mostly shares of right answers) between machines and on GPUs."""
RELATIVE_TOLERANCE = 0.05
"""Relative tolerance for larger numbers, such as residuals and losses."""
WEIGHT_TOLERANCE = 1e-3
"""Largest difference of a tensor's entries, as a share of its largest entry."""


def sample(trail: Trail, count: int, seed: int) -> list[Record]:
    """Draw jobs that can run here and whose inputs and outputs exist, except downloads and deletable caches.

    Raises:
        UserError: if there are fewer than ``count``.
    """
    unable = without_their_gpu(trail)
    possible = [
        record
        for _, record in sorted(trail.records.items())
        if record.upstream is None
        and record.rule not in DELETABLE
        and "revision" not in record.settings
        and record.name not in unable
        and all((trail.root / file.path).exists() for file in record.inputs)
        and all((trail.root / path).exists() for file in record.outputs for path in lasting(file))
    ]
    if count > len(possible):
        raise UserError(f"--rerun {count} exceeds the {len(possible)} jobs that can run here; lower it.")
    return random.Random(seed).sample(possible, count)


def without_their_gpu(trail: Trail) -> set[str]:
    """Return the names of the jobs that ran on a GPU, if this machine has none."""
    names = {record.name for record in trail.records.values() if on_gpu(record)}
    return names if names and not has_gpu() else set()


def on_gpu(record: Record) -> bool:
    """Return whether a job ran on a GPU."""
    return record.determinism is not None and record.determinism.device == "cuda"


def rerun(trail: Trail, count: int, seed: int) -> list[str]:
    """Repeat sampled jobs in a scratch directory; report differences to the trail, and return remarks."""
    if not count:
        return []
    unable = len(without_their_gpu(trail))
    said = []
    if unable:
        said.append(f"{counted(unable, 'job')} ran on a GPU and cannot be repeated on this machine, which has none.")
    for record in sample(trail, count, seed):
        logger.info("Running %s again", record.name)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder).resolve()
            prepare([record], trail.root.resolve(), scratch)
            threads = record.determinism.threads if record.determinism else 1
            failed = replay([record], scratch, threads).get(record.name)
            if failed is not None:
                trail.report("stale", record.name, f"repeated, it failed: {failed}", record)
            else:
                said.append(compared(record, trail, scratch))
    return said


def compared(record: Record, trail: Trail, scratch: Path) -> str:
    """Compare the outputs of a job with those of its repetition.

    On a CPU of the same platform the bytes must be equal; elsewhere and on GPUs, numbers within tolerances.
    """
    here = environment(uses_gpu=False)
    exact = not on_gpu(record) and same_numbers(environment_of(record, trail.root), here)
    equal = close = 0
    for output in record.outputs:
        for path in lasting(output):
            there, again = trail.root / path, scratch / path
            if there.read_bytes() == again.read_bytes():
                equal += 1
                trail.links.append(Link("files made again", path, record.name))
            elif not exact and within_tolerances(there, again):
                close += 1
                trail.links.append(Link("files made again", path, record.name))
            else:
                how = "" if exact else ", beyond the tolerances between machines and on GPUs"
                trail.report("changed", path, f"repeated, {record.name} made other bytes{how}", record)
    tolerated = f", {close} within tolerances" if close else ""
    return f"{record.name} was repeated: {counted(equal, 'file')} with the same bytes{tolerated}."


def lasting(output: Artefact) -> list[str]:
    """Return the files of an output that a repetition must reproduce: those without measurements of time or memory."""
    measured = {f"{output.path}/{name}" if name else output.path for name in output.measurements}
    return [path for path in output.digests if path not in measured]


def within_tolerances(there: Path, again: Path) -> bool:
    """Return whether two files agree within tolerances; broken files and unknown kinds never do."""
    try:
        if there.suffix == ".safetensors":
            return tensors_are_close(there, again)
        if there.suffix == ".json":
            return are_close(*(json.loads(path.read_text(encoding="utf-8")) for path in (there, again)))
        if there.suffix == ".csv":
            return are_close(*(list(rows(path)) for path in (there, again)))
    except (OSError, ValueError, RecursionError, SafetensorError, csv.Error):
        pass
    return False


def rows(path: Path) -> Iterator[list[Any]]:
    """Yield the rows of a CSV, with numeric cells as float."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            yield [number(cell) for cell in row]


def number(text: str) -> float | str:
    """Return a cell as a float if it is a number, else as text."""
    try:
        return float(text)
    except ValueError:
        return text


def are_close(old: Any, new: Any) -> bool:
    """Return whether JSON values are equal, numbers within tolerances."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(are_close(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(are_close, old, new))
    if isinstance(old, int | float) and isinstance(new, int | float):
        both_missing = math.isnan(old) and math.isnan(new)
        return both_missing or math.isclose(old, new, rel_tol=RELATIVE_TOLERANCE, abs_tol=SHARE_TOLERANCE)
    return bool(old == new)


def tensors_are_close(there: Path, again: Path) -> bool:
    """Return whether the tensors of two safetensors files are equal within tolerances."""
    from safetensors.torch import load_file  # noqa: PLC0415 (imports torch)

    old, new = load_file(there), load_file(again)
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
        return False
    differences = ((old[name].double() - new[name].double()).abs() for name in old)
    return all(
        difference.numel() == 0 or float(difference.max()) <= WEIGHT_TOLERANCE * float(old[name].abs().max())
        for name, difference in zip(old, differences, strict=True)
    )
