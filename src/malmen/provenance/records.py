"""Records: the job that made each result, with its inputs, code, settings, environment and cost.

Every job of the workflow leaves one JSON file, ``results/<run>/records/<rule>/<wildcards>.json``
(:mod:`malmen.provenance.recording`). A record names its inputs by their SHA-256 *and* by the digest of the record of
the job that made them, so that records give the lineage of a figure, back to the raw data.

Two digests protect a record. The ``digest``, to which later records refer, covers what is the same in every run of a
job: rule, settings, seeds, code, and the hashes of inputs and outputs. It excludes what differs from run to run: times,
memory, packages, the commit, and the hashes of files with measurements of time or memory. The ``seal`` covers the whole
record, so that no byte can change unnoticed.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from malmen.errors import UserError
from malmen.runtime.files import joint_digest, write_text
from malmen.runtime.model_files import weights_among

FORMAT: Literal[1] = 1
"""Version of the format of records."""

RECORDS = "records"
"""Folder of the records in a run's results."""

RAW = "raw"
"""The folder of downloads in ``data``, and of their records in ``results``."""

ENVIRONMENTS = "environments"
"""Folder of environments inside the folder of records."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = dict[str, int | list[int]]


class RecordPart(BaseModel):
    """A part of a record: unknown keys are errors; the string below a field describes it in the schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


Part = TypeVar("Part", bound=RecordPart)


class Artefact(RecordPart):
    """A file, or a directory with all its files."""

    path: str
    """Its path relative to the project's root, with slashes."""
    sha256: Sha256
    """SHA-256 of the file; for a directory, of its files' names and digests (``runtime.files.joint_digest``)."""
    bytes: NonNegativeInt
    """Its size; for a directory, the size of all its files."""
    files: dict[str, Sha256] | None = None
    """SHA-256 of each file of a directory, by relative path; null for a file."""
    measurements: list[str] = []
    """Files with measurements of time or memory, which differ from run to run; "" is the file itself."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file by its path from the project's root."""
        if self.files is None:
            return {self.path: self.sha256}
        return {f"{self.path}/{name}": digest for name, digest in self.files.items()}

    @property
    def weights(self) -> str | None:
        """The digest of a model directory's weights (``runtime.files.joint_digest``); None without a model."""
        files = self.files or {}
        found = {name: files[name] for name in weights_among(files)}
        return joint_digest(found) if found else None

    def lasting(self) -> dict[str, Any]:
        """Return what is the same in every run."""
        files = {"": self.sha256} if self.files is None else self.files
        return {"path": self.path, "files": {n: None if n in self.measurements else d for n, d in files.items()}}


class Maker(RecordPart):
    """The record of the job that made an input."""

    name: str
    """``<rule>/<wildcards>``: its path in the folder of records, without the suffix."""
    digest: Sha256
    """Its ``digest``."""


class Input(Artefact):
    """An input of a job."""

    maker: Maker | None = None
    """The job that made it; null for a part of the repository or a local model."""

    def lasting(self) -> dict[str, Any]:
        """Return what is the same in every run."""
        return {**super().lasting(), "maker": self.maker.digest if self.maker else None}


class Determinism(RecordPart):
    """What makes a run of a model repeatable."""

    device: str
    """ "cpu" or "cuda"."""
    threads: PositiveInt
    """Number of CPU threads, which divide sums."""
    deterministic_algorithms: bool
    """Whether torch used deterministic algorithms only."""
    cublas_workspace: str | None
    """The environment variable CUBLAS_WORKSPACE_CONFIG."""


class ModelIdentity(RecordPart):
    """The language model that a job made or read."""

    name: str
    """Its key in the configuration."""
    id: str | None
    """Its id on the Hugging Face hub, or its local directory; null if the workflow trained it from scratch."""
    revision: str | None
    """Commit of the hub's repository."""
    weights: Sha256
    """SHA-256 of the safetensors file that the job read or, if it read no model, made; of several files, of their names
    and digests."""


class Upstream(RecordPart):
    """The source of a downloaded file."""

    urls: list[str]
    """Its URLs, in the order in which the workflow tries them."""
    checksum: str
    """Its SHA-256, or the id of its git blob, against which the workflow checked it."""
    licence: str
    """Its licence."""


class Circumstances(RecordPart):
    """Time, place and cost of a job."""

    started: str
    """Start of its work: ISO 8601, UTC."""
    seconds: NonNegativeFloat
    """Duration of its work, without the start of Python and of libraries."""
    cpu_seconds: NonNegativeFloat
    """CPU time of its processes and their child processes, from the start of Python."""
    recording_seconds: NonNegativeFloat
    """Time to hash files and collect this record."""
    peak_bytes: PositiveInt
    """Peak resident memory of its process; of several, the largest."""
    gpu_peak_bytes: NonNegativeInt | None
    """Peak memory of torch's allocator on the GPU; of several, the largest; null without a GPU."""
    batch_sizes: dict[str, list[int]] = {}
    """The physical batch sizes that really ran ("auto" is resolved), by what was divided."""
    uncertain_subjects: dict[str, str] = {}
    """Subjects that MEMIT guessed without being certain, by the edit's id; empty if it found none."""
    ranks: list[str] = []
    """Machine and device of each of the processes that shared the job; empty if one did it alone."""
    ranks_in_turn: list[PositiveInt] = []
    """How many processes shared the parts of an interrupted job, in turn; empty if their number never changed."""
    commit: str | None
    """The commit of the checkout when the job started; null if there is none, or git did not tell it."""
    uncommitted: list[str] | None
    """Files of code and configuration that were changed or untracked then; null if git did not tell them."""
    environment: Sha256
    """Digest of the environment, which ``environments/<digest>.json`` describes."""


class Gpu(RecordPart):
    """A GPU and the software that drives it."""

    name: str
    """Its model."""
    memory_bytes: PositiveInt
    """Its memory."""
    driver: str | None
    """Version of NVIDIA's driver."""
    cuda: str | None
    """Version of CUDA in torch."""
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
    """The values of the rule's wildcards."""
    settings: dict[str, Any]
    """All parameters of the rule, resolved."""
    seeds: dict[str, Any]
    """The seeds among settings and wildcards, by dotted path."""
    determinism: Determinism | None
    """Null if the job ran no model."""
    code: dict[str, str]
    """Digest of the code of the script and of every module used (:mod:`malmen.runtime.code_digest`)."""
    script: str
    """Path of the script, relative to the project's root."""
    model: ModelIdentity | None
    """Null if no language model was involved."""
    upstream: Upstream | None
    """Source of a downloaded output; null for other outputs."""
    inputs: list[Input]
    """The inputs."""
    outputs: list[Artefact]
    """The outputs."""
    input_names: Names
    """Names of inputs in the script, each with an index or a list of indices in ``inputs``."""
    output_names: Names
    """Names of outputs in the script, likewise."""
    circumstances: Circumstances
    """Time, place and cost."""
    digest: str = ""
    """SHA-256 of all that is the same in every run; later records refer to it."""
    seal: str = ""
    """SHA-256 of the rest of this record."""

    @property
    def n_ranks(self) -> int:
        """How many processes share the job; 1 if one does it alone."""
        n: int = (self.settings.get("machine") or {}).get("ranks", 1)
        return n

    @property
    def name(self) -> str:
        """``<rule>/<wildcards>``: its path in the folder of records, without the suffix."""
        return name_of(self.rule, self.wildcards)

    @property
    def run(self) -> str:
        """The run: the folder of its outputs in ``results`` or ``data``."""
        return Path(self.outputs[0].path).parts[1]

    def sealed(self) -> "Record":
        """Return the record with its digest and its seal."""
        digested = self.model_copy(update={"digest": digest_of(self.lasting(self.model_dump()))})
        return digested.model_copy(update={"seal": digest_of(digested.model_dump(exclude={"seal"}))})

    def lasting(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is the same in every run; ``content`` holds the fields of this record."""
        varying = {"circumstances", "inputs", "outputs", "digest", "seal"}
        files = {kind: [file.lasting() for file in getattr(self, kind)] for kind in ("inputs", "outputs")}
        return {name: value for name, value in content.items() if name not in varying} | files

    def is_sealed(self, text: bytes) -> bool:
        """Return whether no byte of the text of this record has changed, by its own digests.

        The text alone counts, since later versions of this class may have further fields.
        """
        content = json.loads(text)
        others = {name: value for name, value in content.items() if name != "seal"}
        digests = (digest_of(self.lasting(content)), digest_of(others))
        return text == as_text(content).encode() and (self.digest, self.seal) == digests


ORDER = {"cache_base_outputs": ("model", "editor", "split")}
"""The order of wildcards in names, of rules of which Snakemake's own differs with the job that asks for an output."""


def name_of(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return the name of a job's record, ``<rule>/<wildcards>``."""
    ordered = {name: wildcards[name] for name in ORDER.get(rule, ()) if name in wildcards} | dict(wildcards)
    return "/".join([rule, *([".".join(ordered.values())] if wildcards else [])])


def digest_of(content: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def records_folder(run: str) -> Path:
    """Return the folder of a run's records; the run "raw" holds the downloads, which all runs share."""
    return Path("results", run, RECORDS)


def record_path(record: Record) -> Path:
    """Return the path of a record, relative to the project's root."""
    return records_folder(record.run) / f"{record.name}.json"


def environment_path(run: str, digest: str) -> Path:
    """Return the path of an environment, relative to the project's root."""
    return records_folder(run) / ENVIRONMENTS / f"{digest}.json"


def to_json(content: BaseModel) -> str:
    """Return a record or an environment as JSON, one value per line for readable diffs."""
    return as_text(content.model_dump())


def as_text(content: Any) -> str:
    """Return JSON values as the text of a file."""
    return json.dumps(content, indent=1) + "\n"


def write_record(record: Record, root: Path = Path()) -> Path:
    """Seal a record, write it to its path, and return the path."""
    path = root / record_path(record)
    write_text(path, to_json(record.sealed()))
    return path


def write_environment(environment: Environment, run: str, root: Path = Path()) -> None:
    """Write an environment to its path, unless the file exists."""
    path = root / environment_path(run, environment.digest)
    if not path.exists():
        write_text(path, to_json(environment))


def read_record(path: Path) -> Record:
    """Read a record and check that no byte has changed.

    Raises:
        UserError: if it is missing, malformed or changed.
    """
    record, content = parsed(path, Record, "is not a record", "restore it, or run its job again")
    if not record.is_sealed(content):
        raise UserError(f"The record {path} has been changed since it was written; restore it, or run its job again.")
    return record


def read_environment(path: Path) -> Environment:
    """Read an environment and check that no byte has changed.

    Raises:
        UserError: if it is missing, malformed or changed.
    """
    environment, content = parsed(path, Environment, "is not an environment file", "restore it")
    found = json.loads(content)
    if digest_of(found) != path.stem or as_text(found).encode() != content:
        raise UserError(f"The environment {path} has been changed since it was written; restore it.")
    return environment


def parsed(path: Path, kind: type[Part], otherwise: str, remedy: str) -> tuple[Part, bytes]:
    """Read a record or an environment, with the bytes of its file; ``otherwise`` is what a malformed file is called."""
    try:
        content = path.read_bytes()
        return kind.model_validate_json(content), content
    except OSError as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); restore it, or run its job again.") from None
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"
        raise UserError(f"{path} {otherwise} ({wrong}); {remedy}.") from None


def read_records(run: str, root: Path = Path()) -> list[Record]:
    """Return all records of a run and of downloads, sorted by file.

    Raises:
        UserError: if one of them is malformed or changed.
    """
    return [read_record(path) for path in record_files(run, root)]


def record_files(run: str, root: Path = Path()) -> list[Path]:
    """Return the files of a run's records, and of those of the downloads that its jobs read, in order."""
    downloads = [root / records_folder(RAW) / f"{name}.json" for name in downloads_of(run, root).values()]
    return [*files_in(records_folder(run), root), *(path for path in sorted({*downloads}) if path.is_file())]


def files_in(folder: Path, root: Path = Path()) -> list[Path]:
    """Return the files of all records in a folder of records, in order."""
    return [path for path in sorted((root / folder).rglob("*.json")) if path.parent.name != ENVIRONMENTS]


def downloads_of(run: str, root: Path = Path()) -> dict[str, str]:
    """Return the downloads that the jobs of a run read, by path: the names of the records of their jobs.

    All configurations share the downloads; what others read is none of a run's business. Malformed records are left
    out: to name them is :func:`read_record`'s work.
    """
    found = {}
    for path in files_in(records_folder(run), root):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            for file in json.loads(path.read_bytes())["inputs"]:
                if Path(file["path"]).parts[:2] == ("data", RAW) and file["maker"]:
                    found[file["path"]] = str(file["maker"]["name"])
    return found


def write_schema(path: Path) -> None:
    """Write the JSON schema of records."""
    write_text(path, json.dumps(Record.model_json_schema(), indent=1) + "\n")


def plain(settings: Any) -> dict[str, Any]:
    """Return settings as JSON values: lists for tuples, strings for paths."""
    values: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return values
