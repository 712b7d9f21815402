"""Records: what made each result, from which files, by which code and settings, where, and at what cost.

Every job of the workflow leaves one JSON file, ``results/<run>/records/<rule>/<wildcards>.json``
(:mod:`malmen.provenance.recording`). A record names its inputs by their SHA-256 *and* by the digest of the record of
the job that made them, so that records give the lineage of a figure, back to the raw data.

Two digests guard a record. The ``digest`` covers what is the same in every run of the same thing: rule, settings,
seeds, code, and the hashes of inputs and outputs; it is what later records refer to. What differs from run to run
(times, memory, packages, commit, and files that hold measurements of time or memory) is left out of it: such a file is
named in it without its hash. The ``seal`` covers everything, so that no byte of a record can change unnoticed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from malmen.errors import UserError
from malmen.runtime.files import joint_digest, write_text

FORMAT: Literal[1] = 1
"""Version of the format of records."""

RECORDS = "records"
"""Folder of the records in a run's results."""

ENVIRONMENTS = "environments"
"""Folder in it of the environments that records refer to."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = dict[str, int | list[int]]


class RecordPart(BaseModel):
    """A part of a record: unknown keys are errors, fields are described by the strings below them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Artefact(RecordPart):
    """A file, or a directory with all its files."""

    path: str
    """Where it lies, from the project's root, with slashes."""
    sha256: Sha256
    """SHA-256 of a file; of a directory, that of its files' names and digests (``runtime.files.joint_digest``)."""
    bytes: NonNegativeInt
    """Its size, of a directory that of all files."""
    files: dict[str, Sha256] | None = None
    """The files of a directory, by their paths below it; null for a file."""
    measurements: list[str] = []
    """Which files hold measurements of time or memory, which differ from run to run; "" is the file itself."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file by its path from the project's root."""
        if self.files is None:
            return {self.path: self.sha256}
        return {f"{self.path}/{name}": digest for name, digest in self.files.items()}

    @property
    def weights(self) -> str | None:
        """The digest of a model directory's weights (``runtime.files.joint_digest``); None if it holds no model."""
        found = {n: d for n, d in (self.files or {}).items() if n.endswith(".safetensors") and "/" not in n}
        return joint_digest(found) if found else None

    def lasting(self) -> dict[str, Any]:
        """Return what is the same in every run."""
        files = {"": self.sha256} if self.files is None else self.files
        return {"path": self.path, "files": {n: None if n in self.measurements else d for n, d in files.items()}}


class Maker(RecordPart):
    """The record of the job that made an input."""

    name: str
    """``<rule>/<wildcards>``: its file below the records, without its ending."""
    digest: Sha256
    """Its ``digest``."""


class Input(Artefact):
    """What a job read."""

    maker: Maker | None = None
    """Where it came from; null if no job made it: it is part of the repository, or a local model."""

    def lasting(self) -> dict[str, Any]:
        """Return what is the same in every run."""
        return {**super().lasting(), "maker": self.maker.digest if self.maker else None}


class Determinism(RecordPart):
    """What makes a run of a model repeatable."""

    device: str
    """ "cpu" or "cuda"."""
    threads: PositiveInt
    """CPU threads: sums are split by them."""
    deterministic_algorithms: bool
    """Whether torch was told to use deterministic algorithms alone, in the job's own process."""
    cublas_workspace: str | None
    """The environment variable CUBLAS_WORKSPACE_CONFIG."""


class ModelIdentity(RecordPart):
    """The language model that a job made or read."""

    name: str
    """Its key in the configuration."""
    id: str | None
    """Its id on the Hugging Face hub, or its local directory; null if it was trained from nothing here."""
    revision: str | None
    """Commit of the hub's repository."""
    weights: Sha256
    """SHA-256 of its safetensors, as the job read them or, if it read no model, made them: the file's, or of several
    that of their names and digests."""


class Upstream(RecordPart):
    """Where a downloaded file is published."""

    urls: list[str]
    """Places, in the order in which they are tried."""
    checksum: str
    """What the file was checked by: its SHA-256, or else the id of its git blob."""
    licence: str
    """Under which it is published."""


class Circumstances(RecordPart):
    """When and where a job ran, and what it cost."""

    started: str
    """When its work began: ISO 8601, UTC."""
    seconds: NonNegativeFloat
    """Time from then to the end of its work, without the start of Python and of libraries."""
    cpu_seconds: NonNegativeFloat
    """Computing time of its process and of those it started, with the start."""
    recording_seconds: NonNegativeFloat
    """Time that hashing files and gathering all this took."""
    peak_bytes: PositiveInt
    """Largest resident memory of its process."""
    gpu_peak_bytes: NonNegativeInt | None
    """Most memory that torch's allocator held on the GPU; null without one."""
    commit: str | None
    """The commit of the checkout; null outside of git."""
    uncommitted: list[str]
    """Files of code and configuration that differed from that commit, or were unknown to it."""
    environment: Sha256
    """Digest of the software and hardware, described in ``environments/<digest>.json``."""


class Gpu(RecordPart):
    """A GPU and the software that drives it."""

    name: str
    """Its model."""
    memory_bytes: PositiveInt
    """Its memory."""
    driver: str | None
    """Version of NVIDIA's driver."""
    cuda: str | None
    """Version of CUDA that torch was built with."""
    cudnn: int | None
    """Version of cuDNN."""


class Environment(RecordPart):
    """Software and hardware of a job."""

    python: str
    """Its version."""
    platform: str
    """Operating system and architecture."""
    processor: str
    """Model of the CPU."""
    cores: PositiveInt
    """CPU cores of the machine."""
    gpu: Gpu | None
    """The GPU, if the job used one."""
    packages: dict[str, str]
    """Version of every installed Python package."""

    @property
    def digest(self) -> str:
        """Its SHA-256, by which records refer to it."""
        return digest_of(self.model_dump())


class Record(RecordPart):
    """One job that ended well."""

    format: Literal[1] = FORMAT
    """Version of this format."""
    rule: str
    """The rule of the workflow."""
    wildcards: dict[str, str]
    """What the rule was applied to."""
    settings: dict[str, Any]
    """All parameters of the rule, resolved."""
    seeds: dict[str, Any]
    """The seeds among settings and wildcards, by their place there."""
    determinism: Determinism | None
    """Null if the job ran no model."""
    code: dict[str, str]
    """Digest of the code of every module used, and of the script (:mod:`malmen.runtime.code_digest`)."""
    script: str
    """The script, from the project's root."""
    model: ModelIdentity | None
    """Null if no language model was involved."""
    upstream: Upstream | None
    """Where the output is published; null if it was made here."""
    inputs: list[Input]
    """What was read."""
    outputs: list[Artefact]
    """What was made."""
    input_names: Names
    """Names by which the script knows inputs, with their places in ``inputs``: a place, or a list of places."""
    output_names: Names
    """Likewise of outputs."""
    circumstances: Circumstances
    """When and where, and at what cost."""
    digest: str = ""
    """Of all that is the same in every run; later records refer to it."""
    seal: str = ""
    """Of everything else in this record."""

    @property
    def name(self) -> str:
        """``<rule>/<wildcards>``: its file below the records, without its ending."""
        return name_of(self.rule, self.wildcards)

    @property
    def run(self) -> str:
        """The folder of results that it belongs to: that of its outputs, in ``results`` or ``data``."""
        return Path(self.outputs[0].path).parts[1]

    def sealed(self) -> "Record":
        """Return the record with its digest and its seal."""
        lasting = self.model_dump(exclude={"circumstances", "inputs", "outputs", "digest", "seal"})
        lasting |= {kind: [file.lasting() for file in getattr(self, kind)] for kind in ("inputs", "outputs")}
        digested = self.model_copy(update={"digest": digest_of(lasting)})
        return digested.model_copy(update={"seal": digest_of(digested.model_dump(exclude={"seal"}))})


def name_of(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return ``<rule>/<wildcards>``, by which a job's record is known."""
    return "/".join([rule, *([".".join(wildcards.values())] if wildcards else [])])


def digest_of(content: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def records_folder(run: str) -> Path:
    """Return where the records of a run lie; those of downloads, which all profiles share, under "raw"."""
    return Path("results", run, RECORDS)


def record_path(record: Record) -> Path:
    """Return where a record lies, from the project's root."""
    return records_folder(record.run) / f"{record.name}.json"


def environment_path(run: str, digest: str) -> Path:
    """Return where an environment lies, from the project's root."""
    return records_folder(run) / ENVIRONMENTS / f"{digest}.json"


def to_json(content: BaseModel) -> str:
    """Return a record or an environment as it is written: one value a line, so that versions can be compared."""
    return json.dumps(content.model_dump(), indent=1) + "\n"


def write_record(record: Record, root: Path = Path()) -> Path:
    """Write a sealed record to its place below the project's root, and return that."""
    path = root / record_path(record)
    write_text(path, to_json(record.sealed()))
    return path


def write_environment(environment: Environment, run: str, root: Path = Path()) -> None:
    """Write an environment to its place, unless it is there."""
    path = root / environment_path(run, environment.digest)
    if not path.exists():
        write_text(path, to_json(environment))


def read_record(path: Path) -> Record:
    """Read a record and check that not a byte of it has changed.

    Raises:
        UserError: if it is missing, malformed or changed.
    """
    content = read(path)
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is not a record ({first_error(error)}); restore it, or run its job again.") from None
    if record.sealed() != record or to_json(record).encode() != content:
        raise UserError(f"The record {path} has been changed since it was written; restore it, or run its job again.")
    return record


def read_environment(path: Path) -> Environment:
    """Read an environment and check that not a byte of it has changed.

    Raises:
        UserError: if it is missing, malformed or changed.
    """
    content = read(path)
    try:
        environment = Environment.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} describes no environment ({first_error(error)}); restore it.") from None
    if environment.digest != path.stem or to_json(environment).encode() != content:
        raise UserError(f"The environment {path} has been changed since it was written; restore it.")
    return environment


def read(path: Path) -> bytes:
    """Return the content of a file of records."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); restore it, or run its job again.") from None


def first_error(error: ValidationError) -> str:
    """Say what is wrong first."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"


def read_records(run: str, root: Path = Path()) -> list[Record]:
    """Return all records of a run and of downloads, in the order of their files.

    Raises:
        UserError: if one of them is malformed or changed.
    """
    return [read_record(path) for path in record_files(run, root)]


def record_files(run: str, root: Path = Path()) -> list[Path]:
    """Return the files of all records of a run and of downloads, in order."""
    folders = [root / records_folder(name) for name in (run, "raw")]
    found = (path for folder in folders for path in sorted(folder.rglob("*.json")))
    return [path for path in found if path.parent.name != ENVIRONMENTS]


def write_schema(path: Path) -> None:
    """Write the JSON schema of records."""
    write_text(path, json.dumps(Record.model_json_schema(), indent=1) + "\n")


def plain(settings: Any) -> dict[str, Any]:
    """Return settings as JSON holds them: lists for tuples, texts for paths."""
    values: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return values
