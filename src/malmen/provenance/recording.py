"""Writing the record of a job at its end."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from malmen.errors import UserError
from malmen.provenance.environment import checkout, environment
from malmen.provenance.records import (
    RAW,
    Artefact,
    Circumstances,
    Determinism,
    Input,
    Maker,
    ModelIdentity,
    Names,
    Record,
    Upstream,
    files_in,
    plain,
    record_path,
    records_folder,
    write_environment,
    write_record,
)
from malmen.runtime.code_digest import script_digest
from malmen.runtime.files import joint_digest, sha256
from malmen.runtime.model_files import source_of
from malmen.runtime.noted import NOTES, Notes
from malmen.runtime.process_stats import cpu_seconds, highest_resident_bytes

SNAKEMAKES_OWN = ".snakemake_timestamp"
"""A file that Snakemake adds to output directories after their job."""


class JobFiles(Protocol):
    """The files of a job, in order; some have names."""

    def __iter__(self) -> Iterator[str]: ...

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return pairs of a name and a file or list of files."""


class SnakemakeJob(Protocol):
    """A job as Snakemake passes it to a script, in the global variable ``snakemake``."""

    input: JobFiles
    output: JobFiles
    params: Mapping[str, Any]
    wildcards: Mapping[str, str]
    resources: Mapping[str, Any]
    log: list[str]
    rule: str


States = dict[str, tuple[int, int]]
"""Modification times in nanoseconds and sizes in bytes of files, by path."""


@dataclass(frozen=True)
class Start:
    """The start of a job's work, and the states of its inputs and of the checkout then."""

    inputs: States = field(default_factory=dict)
    checkout: tuple[str | None, list[str] | None] = field(default_factory=checkout)
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.clock


@dataclass(frozen=True)
class Work:
    """What one of the processes that share a job did.

    Attributes:
        where: its machine and device.
        cpu_seconds: its CPU time.
        peak_bytes: its peak resident memory.
        gpu_peak_bytes: the peak of its GPU's allocator; 0 without a GPU.
        notes: what it found out.
    """

    where: str = ""
    cpu_seconds: float = field(default_factory=cpu_seconds)
    peak_bytes: int = field(default_factory=highest_resident_bytes)
    gpu_peak_bytes: int = 0
    notes: Notes = field(default_factory=lambda: NOTES)


def record_job(task: SnakemakeJob, script: Path, start: Start, ranks: Sequence[Work] = ()) -> Path:
    """Write the record of a finished job, which replaces earlier records of its outputs; return its path.

    Args:
        task: the job.
        script: its script.
        start: the start of its work.
        ranks: the work of the processes that shared it, this one's first; empty if this one did it alone.

    Raises:
        UserError: if an input has changed since the start.
    """
    seconds, recording = start.seconds, time.perf_counter()
    known = KnownRecords(Path(next(iter(task.output))).parts[1])
    settings = plain(dict(task.params.items()))
    code = settings.pop("code", {})
    check_unchanged(task, start)
    inputs = [known.input(path) for path in task.input]
    derived = any("" in file.measurements for file in inputs)
    outputs = [artefact(path, derived) for path in task.output]
    wildcards = dict(task.wildcards.items())
    record = Record(
        rule=task.rule,
        wildcards=wildcards,
        settings=settings,
        seeds=seeds_in({**settings, **wildcards}),
        determinism=determinism(settings.get("machine")),
        code={**code, f"scripts/{script.name}": script_digest(script)},
        script=relative(script),
        model=model_of(task, settings, inputs, outputs, known),
        upstream=upstream_of(outputs),
        inputs=inputs,
        outputs=outputs,
        input_names=places(task.input),
        output_names=places(task.output),
        circumstances=circumstances(start, seconds, recording, settings.get("machine"), known.run, ranks),
    )
    check_unchanged(task, start)  # They must not change during hashing either.
    made = {output.path for output in outputs}
    for path, other in known.files.items():  # Others of the same outputs remain after a rename.
        if path != record_path(record) and made & {output.path for output in other.outputs}:
            path.unlink(missing_ok=True)
    return write_record(record)


def states(paths: Iterable[str]) -> States:
    """Return the states of files and of all files in directories."""
    files = (file for path in paths for file in files_of(Path(path)))
    return {file.as_posix(): (found.st_mtime_ns, found.st_size) for file in files for found in [file.stat()]}


def files_of(place: Path) -> list[Path]:
    """Return the files of a directory, sorted, or the file itself; an empty list if the path does not exist."""
    found = sorted(place.rglob("*")) if place.is_dir() else [place]
    return [file for file in found if file.is_file() and file.name != SNAKEMAKES_OWN]


def check_unchanged(task: SnakemakeJob, start: Start) -> None:
    """Raise :class:`UserError` if an input has changed since the start."""
    now = states(task.input)
    for path in sorted({*start.inputs, *now}):
        if start.inputs.get(path) != now.get(path):
            raise UserError(f"{path} changed while the job ran; run the same command again.")


def relative(path: Path) -> str:
    """Return a path relative to the working directory, with slashes; a path outside stays absolute."""
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()


def artefact(path: str, derived: bool = False) -> Artefact:
    """Hash a file or all files of a directory; ``derived`` means that a file holds measurements from an input."""
    place = Path(path)
    if place.is_dir():
        files = files_of(place)
        digests = {file.relative_to(place).as_posix(): sha256(file) for file in files}
        costs = [name for name in digests if holds_costs(name)]
        size = sum(file.stat().st_size for file in files)
        return Artefact(path=path, sha256=joint_digest(digests), bytes=size, files=digests, measurements=costs)
    measured = [""] if derived or holds_costs(path) else []
    return Artefact(path=path, sha256=sha256(place), bytes=place.stat().st_size, measurements=measured)


def holds_costs(path: str) -> bool:
    """Return whether a file holds times and memory, by its name."""
    return Path(path).name == "cost.json" or path.endswith(".cost.json")


def places(files: JobFiles) -> Names:
    """Return the names of files, each with an index or a list of indices."""
    order = [str(file) for file in files]
    return {
        name: order.index(named) if isinstance(named, str) else [order.index(str(file)) for file in named]
        for name, named in files.items()
    }


def seeds_in(settings: Any, place: str = "") -> dict[str, Any]:
    """Return all values of keys ``seed`` or ``seeds``, by dotted path."""
    found: dict[str, Any] = {}
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        if key in ("seed", "seeds"):
            found[f"{place}{key}"] = value
        else:
            found |= seeds_in(value, f"{place}{key}.")
    return found


def determinism(machine: Mapping[str, Any] | None) -> Determinism | None:
    """Return what makes the job repeatable, as torch reports it; None if it ran no model."""
    if machine is None:
        return None
    return Determinism(
        device=machine["device"],
        threads=machine["threads"],
        deterministic_algorithms=sys.modules["torch"].are_deterministic_algorithms_enabled(),
        cublas_workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def circumstances(
    start: Start, seconds: float, recording: float, machine: Mapping[str, Any] | None, run: str, ranks: Sequence[Work]
) -> Circumstances:
    """Return when and where a job ran, and its cost; write its environment to a file of its own."""
    on_gpu = machine is not None and machine["device"] == "cuda"
    surroundings = environment(on_gpu)
    write_environment(surroundings, run)
    commit, uncommitted = start.checkout
    here = Work(gpu_peak_bytes=gpu_peak_bytes() if on_gpu else 0)
    all_work = [here, *ranks[1:]]
    notes = Notes.of_all(work.notes for work in all_work)
    in_turn = NOTES.in_turn(len(all_work))
    return Circumstances(
        started=start.moment.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        cpu_seconds=round(sum(work.cpu_seconds for work in all_work), 3),
        recording_seconds=round(time.perf_counter() - recording, 4),
        peak_bytes=max(work.peak_bytes for work in all_work),
        gpu_peak_bytes=max(work.gpu_peak_bytes for work in all_work) if on_gpu else None,
        batch_sizes={purpose: sorted(sizes) for purpose, sizes in sorted(notes.batch_sizes.items())},
        uncertain_subjects=dict(sorted(notes.uncertain_subjects.items())),
        ranks=[work.where for work in ranks],
        ranks_in_turn=in_turn if len(in_turn) > 1 else [],
        commit=commit,
        uncommitted=uncommitted,
        environment=surroundings.digest,
    )


def gpu_peak_bytes() -> int:
    """Return the peak memory of torch's allocator on the GPU, in bytes."""
    from malmen.runtime.peak_memory import highest_allocated_bytes  # noqa: PLC0415 (only jobs that run a model load torch)

    return highest_allocated_bytes()


def model_of(
    task: SnakemakeJob, settings: Mapping[str, Any], inputs: list[Input], outputs: list[Artefact], known: "KnownRecords"
) -> ModelIdentity | None:
    """Return the language model that a job read (its input ``model``) or, if none, made (a directory with weights)."""
    read = [inputs[place] for name, place in places(task.input).items() if name == "model" and isinstance(place, int)]
    for directory in (*read, *outputs):
        if directory.weights:
            fetched = source_of(Path(directory.path)) or {}
            origin = {"id": fetched.get("model"), "revision": fetched.get("revision")}
            if read:
                made = known.makers.get(directory.path)
                origin = made.model.model_dump() if made and made.model else {"id": directory.path, "revision": None}
            name = task.wildcards.get("model") or settings["model"]["name"]  # a memory figure names its model
            return ModelIdentity(name=name, id=origin["id"], revision=origin["revision"], weights=directory.weights)
    return None


def upstream_of(outputs: list[Artefact]) -> Upstream | None:
    """Return the source of a downloaded file; None for other outputs."""
    if Path(outputs[0].path).parts[1] != RAW:
        return None
    from malmen.config.upstream_files import upstream_files  # noqa: PLC0415 (only the download comes here, which has loaded it)

    source = upstream_files()[Path(outputs[0].path).name]
    return Upstream(urls=list(source.urls), checksum=source.checksum or "", licence=source.licence)


class KnownRecords:
    """The existing records of a run and of downloads.

    Only the audit checks their seals. Malformed files are ignored.
    """

    def __init__(self, run: str) -> None:
        self.run = run

    @cached_property
    def files(self) -> dict[Path, Record]:
        """Each readable record, by its file."""
        found = {}
        for path in (*files_in(records_folder(self.run)), *files_in(records_folder(RAW))):
            with suppress(OSError, ValueError):
                found[path] = Record.model_validate_json(path.read_bytes())
        return found

    @cached_property
    def makers(self) -> dict[str, Record]:
        """The record of the job that made each file or directory, by path."""
        return {output.path: record for record in self.files.values() for output in record.outputs}

    def input(self, path: str) -> Input:
        """Hash an input, and link it to the record of the job that made it."""
        made = self.makers.get(path)
        maker = Maker(name=made.name, digest=made.digest) if made else None
        outputs = made.outputs if made else []
        derived = any(output.path == path and "" in output.measurements for output in outputs)
        return Input(**artefact(path, derived).model_dump(), maker=maker)
