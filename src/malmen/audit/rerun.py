"""Repeating a sample of recorded jobs, and comparing their outputs with the recorded ones."""

import csv
import json
import logging
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from malmen.audit.judging import answers_agree, do_the_same, measuring_jobs
from malmen.audit.replay import prepare, replay
from malmen.audit.trail import DELETABLE, Link, Trail
from malmen.errors import UserError
from malmen.provenance.environment import environment, environment_of, has_gpu, same_numbers
from malmen.provenance.records import Artefact, Record
from malmen.results.answers import SUFFIX as ANSWERS
from malmen.runtime.text import counted

logger = logging.getLogger("malmen")

JUDGED = (".safetensors", "training.json")
"""How files end that are judged by what they do: weights, and the losses on the way to them."""

SHARE_TOLERANCE = 0.02
"""Absolute tolerance for numbers in JSON and CSV (mostly shares of right answers) between machines and on GPUs."""
RELATIVE_TOLERANCE = 0.05
"""Relative tolerance for larger numbers, such as residuals and losses."""


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
        and trail.checkout(record.name) is not None
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
            judges = [] if bytes_decide(record, trail) else measuring_jobs(record, trail.records.values())
            prepare([record, *judges], trail.root.resolve(), scratch)
            if repeated(record, trail, scratch):
                said.append(compared(record, trail, scratch, judges))
    return said


def repeated(record: Record, trail: Trail, scratch: Path) -> bool:
    """Run a job again in a scratch directory that is prepared for it; report and return False if it fails."""
    threads = record.determinism.threads if record.determinism else 1
    failed = replay([record], scratch, trail.checkout(record.name) or trail.root, threads).get(record.name)
    if failed is not None:
        trail.report("stale", record.name, f"repeated, it failed: {failed}", record)
    return failed is None


def bytes_decide(record: Record, trail: Trail) -> bool:
    """Return whether a repetition must make the same bytes: on a CPU of the same platform.

    A job that another number of processes finished than began it cannot be repeated so.
    """
    here = environment(uses_gpu=False)
    as_it_was = not on_gpu(record) and not record.circumstances.ranks_in_turn
    return as_it_was and same_numbers(environment_of(record, trail.root), here)


def compared(record: Record, trail: Trail, scratch: Path, judges: Sequence[Record] = ()) -> str:
    """Compare the outputs of a job with those of its repetition.

    On a CPU of the same platform the bytes must be equal; elsewhere, on GPUs, and where the number of processes changed
    on the way, numbers within tolerances, and weights must do the same (:mod:`malmen.audit.judging`).

    Args:
        record: the job.
        trail: where differences are reported.
        scratch: the directory in which it was repeated.
        judges: the jobs that lead to a measurement of the weights that it made.
    """
    exact = bytes_decide(record, trail)
    equal, close, weights = 0, 0, []
    for output in record.outputs:
        for path in lasting(output):
            there, again = trail.root / path, scratch / path
            if there.read_bytes() == again.read_bytes():
                equal += 1
                trail.links.append(Link("files made again", path, record.name))
            elif not exact and path.endswith(JUDGED):
                weights.append(path)
            elif not exact and within_tolerances(there, again):
                close += 1
                trail.links.append(Link("files made again", path, record.name))
            else:
                how = "" if exact else ", beyond the tolerances that hold where bytes may differ"
                trail.report("changed", path, f"repeated, {record.name} made other bytes{how}", record)
    tolerated = f", {close} within tolerances" if close else ""
    judgement = judged(record, trail, scratch, judges, weights) if weights else ""
    return f"{record.name} was repeated: {counted(equal, 'file')} with the same bytes{tolerated}.{judgement}"


def judged(record: Record, trail: Trail, scratch: Path, judges: Sequence[Record], weights: Sequence[str]) -> str:
    """Judge weights with other bytes by measuring them again; report what they do differently, and return a remark."""
    others = f"{counted(len(weights), 'file')} of weights and losses with other bytes"
    if not judges:
        return f" It has {others}; no job measures them, so they are not judged."
    if not all(repeated(job, trail, scratch) for job in judges):
        return f" It has {others}, which are not judged."
    measured = [path for output in judges[-1].outputs for path in lasting(output) if not path.endswith(ANSWERS)]
    if all(do_the_same(trail.root / path, scratch / path) for path in measured):
        trail.links += [Link("weights that do the same", path, record.name) for path in weights]
        return f" It has {others}, which do the same ({judges[-1].name})."
    for path in weights:
        how = f"repeated, {record.name} made other bytes that do not do the same in {measured[0]}"
        trail.report("changed", path, how, record)
    return f" It has {others}, which do not do the same ({judges[-1].name})."


def lasting(output: Artefact) -> list[str]:
    """Return the files of an output that a repetition must reproduce: those without measurements of time or memory."""
    measured = {f"{output.path}/{name}" if name else output.path for name in output.measurements}
    return [path for path in output.digests if path not in measured]


def within_tolerances(there: Path, again: Path) -> bool:
    """Return whether two files agree within tolerances; broken files and unknown kinds never do."""
    try:
        if there.name.endswith(ANSWERS):
            return answers_agree(there, again, SHARE_TOLERANCE)
        if there.suffix == ".json":
            return are_close(*(json.loads(path.read_text(encoding="utf-8")) for path in (there, again)))
        if there.suffix == ".csv":
            return are_close(*(list(rows(path)) for path in (there, again)))
    except (OSError, UserError, ValueError, RecursionError, csv.Error):
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
